"""The resources: each decodes a request, calls, and encodes the answer."""
