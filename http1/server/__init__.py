"""The HTTP/1.1 server: bytes to requests, responses to bytes.

* EOF after a complete HTTP/1.1 request: the client may have closed only its sending direction, so
  it still gets its response. To find out whether it still reads, the server sends 100 (Continue),
  which every client has to accept (RFC 9110 §15.2): a client that closed sends a reset. Once
  the response has begun the server cannot probe any more, and EOF means that the client left, as it
  always does with HTTP/1.0. EOF within a body gets 400.
* A response that begins before the request's body has ended says ``connection: close``. What the
  client still sends is discarded for a while (RFC 9112 §9.6), as after every error response.
* While the server does not read a socket, the event loop cannot report that the peer left. Every
  check asks for such a socket's error and TCP state, and a body that is not wanted yet is read up
  to the high-water mark.
"""
