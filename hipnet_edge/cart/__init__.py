"""The imaging-cart service: receive radiographs, keep them, read them, deliver what was found.

Nothing is imported here: the parts bring pynetdicom, pydantic and a web server with them, and the
rest of the package must stay light without them.
"""
