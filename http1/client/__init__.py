"""A small HTTP/1.1 client on `httptools`, made for streaming: callbacks, no task per exchange."""
