"""DICOM files: header, pixel data, and how stored values look."""
