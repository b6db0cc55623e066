"""The steps, one verb a module, and the flow that orders them."""
