"""The door over HTTP: KServe's JSON with binary data, on uvicorn's protocol with bounds of the door's own."""
