"""Secrets at rest: AES-256-GCM, each sealed text bound to the place where it belongs.

A sealed text is a format byte, a nonce of 12 random bytes, and the ciphertext with its tag. With
random nonces one key is good for 2^32 texts (NIST SP 800-38D §8.3), which is more than functions
will have secrets.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
_FORMAT = b"\x01"


class SealError(ValueError):
    """Sealed with another key, for another place, or damaged. Says nothing of the contents."""


class Sealer:
    """Seals and opens with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, text: bytes, place: str, nonce: bytes) -> bytes:
        """Return ``text`` sealed for ``place``. ``nonce``: 12 random bytes, never used again."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        return _FORMAT + nonce + self._aead.encrypt(nonce, text, _FORMAT + place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Return what was sealed for ``place``. Raises `SealError`."""
        if sealed[:1] != _FORMAT or len(sealed) < 1 + NONCE_BYTES:
            raise SealError("not a sealed text of a format that this program knows")
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, ciphertext, _FORMAT + place.encode())
        except InvalidTag:
            raise SealError("sealed with another key, or for another place") from None
