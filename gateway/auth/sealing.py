"""Encryption of secrets at rest: AES-256-GCM, each ciphertext bound to the record it belongs to.

A sealed text is a format byte, a nonce of 12 random bytes, and the ciphertext with its tag. With
random nonces one key may encrypt 2^32 texts (NIST SP 800-38D §8.3), far more than functions have
secrets.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
_FORMAT = b"\x01"


class SealError(ValueError):
    """Sealed with another key or for another context, or damaged. Never shows the contents."""


class SecretBox:
    """Encrypts ("seals") and decrypts ("opens") with one key of 32 bytes.

    ``context`` names the record that the text belongs to. It is the cipher's associated data, so
    that a sealed text copied into another record does not open there.
    """

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, text: bytes, context: str, nonce: bytes) -> bytes:
        """Return ``text`` encrypted. ``nonce`` must be 12 random bytes, never used again."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        return _FORMAT + nonce + self._aead.encrypt(nonce, text, _FORMAT + context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return the text of ``sealed``. Raises `SealError`."""
        if sealed[:1] != _FORMAT or len(sealed) < 1 + NONCE_BYTES:
            raise SealError("not a sealed text of a known format")
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, ciphertext, _FORMAT + context.encode())
        except InvalidTag:
            raise SealError("sealed with another key or for another record, or damaged") from None
