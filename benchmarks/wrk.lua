-- Has wrk post files to the service, one after the other, and print what it measured as JSON.
-- wrk … URL -- FILE…: each file is the body of a form whose boundary is "x".

local requests, place, threads = {}, 0, {}
failed = 0  -- of a thread: what `thread:get` finds

function setup(thread)
  table.insert(threads, thread)
end

function init(names)
  for _, name in ipairs(names) do
    local file = assert(io.open(name, "rb"))
    local form = { ["Content-Type"] = "multipart/form-data; boundary=x" }
    table.insert(requests, wrk.format("POST", nil, form, file:read("*a")))
    file:close()
  end
end

function request()
  place = place % #requests + 1
  return requests[place]
end

function response(status, _, body)
  if status ~= 200 or not body:find('"error": null', 1, true) then
    failed = failed + 1
  end
end

function done(summary, latency)
  for _, thread in ipairs(threads) do
    failed = failed + thread:get("failed")
  end
  local errors = summary.errors
  local told = '\n{"answered": %d, "seconds": %f, "median": %f, "of_twenty": %f, "failed": %d}\n'
  failed = failed + errors.connect + errors.read + errors.write + errors.timeout
  io.write(told:format(summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6,
                       latency:percentile(95) / 1e6, failed))
end
