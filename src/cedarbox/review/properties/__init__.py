"""Properties: what must never, always or sometimes be permitted, whatever the policies say, as files beside them."""
