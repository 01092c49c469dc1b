"""Client and worker connections: bytes to requests, responses to bytes.

* EOF after a complete HTTP/1.1 request: the client may have shut down one direction only, so it
  still gets its answer. Whether it is there at all is found out by sending it 100 (Continue), which
  every client has to bear (RFC 9110 §15.2): one that closed answers with a reset. Once the response
  has begun nothing can be asked any more, and EOF means that the client left, as everywhere with
  HTTP/1.0. EOF within a body is answered 400.
* An answer before the body's end says ``connection: close``, and what the client still sends is
  thrown away for a while (RFC 9112 §9.6), as after every refusal.
* A connection of which nothing is read cannot tell that its peer left: its socket's error and state
  are asked for at every check, and a body that nobody wants yet is read up to the high-water mark.
"""
