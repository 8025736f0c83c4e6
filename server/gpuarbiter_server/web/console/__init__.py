"""The web console: what is seen of the arbiter in a browser, live."""
