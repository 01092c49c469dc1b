"""HTTP/1.1 for both programs: one stream language, its server and its client."""
