"""A page as a browser would see it, for tests of reports."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "wbr"}
UNREAD = {"data", "svg", "style", "code", "th", "title"}


class Page(HTMLParser):
    """Balanced tags and their attributes, what is said, and which values are cited.

    Attributes:
        tags: each with its attributes, in order.
        all_words: all text, with single spaces as in a browser.
        words: text that cites nothing: outside `UNREAD`.
        cited: attributes and text of each ``<data>``.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.cited: list[tuple[dict[str, str], str]] = []
        self.all_words = self.words = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        self.all_words, self.words = (" ".join(words.split()) for words in (self.all_words, self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.cited.append((self.tags[-1][1], ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.all_words += data
        if not UNREAD & set(self.open):
            self.words += data
        if self.open and self.open[-1] == "data":
            attributes, text = self.cited.pop()
            self.cited.append((attributes, text + data))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)
