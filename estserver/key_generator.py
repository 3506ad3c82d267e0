"""Keys made for others, off the event loop where it takes long.

The randomness is OpenSSL's (threats row 18). An EC or Ed25519 key takes less than a thread hop; RSA-4096 takes up to seconds, so RSA keys
are made in a bounded pool, whose line is short: who waits for long asks again, and then gets another key anyway.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from estcore.errors import Busy
from estcore.issuer_spec import KeyAlgorithm
from estcore.keys import PrivateKey, generate_private_key

THREADS: Final = 2
WAITING: Final = 16

_SLOW = frozenset({KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096})


class KeyGenerator:
    """`threads` RSA keys at once, `waiting` more in line; the next one is told to come back. One per process; threads start when needed."""

    def __init__(self, *, threads: int = THREADS, waiting: int = WAITING) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="keys")
        self._room = threads + waiting

    def check_room(self, algorithm: KeyAlgorithm) -> None:
        """Raise Busy where `generate` would."""
        if algorithm in _SLOW and self._room == 0:
            raise Busy("too many keys are being made; try again")

    async def generate(self, algorithm: KeyAlgorithm) -> PrivateKey:
        """A new key. Raises Busy where the line is full."""
        if algorithm not in _SLOW:
            return generate_private_key(algorithm)
        self.check_room(algorithm)
        self._room -= 1
        loop = asyncio.get_running_loop()
        work = self._pool.submit(generate_private_key, algorithm)
        # A request that goes away does not stop the thread, which has its place until it is done.
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(work)

    def _release(self) -> None:
        self._room += 1

    def close(self) -> None:
        """End the threads; what is in line is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
