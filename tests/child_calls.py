"""What the children of test_processes.py do; nothing that takes long to import is needed for it."""

import os
import time


def speak() -> None:
    print("hello from a child")


def fail() -> None:
    raise SystemExit("it cannot be done")


def sleep() -> None:
    time.sleep(600)


def grow() -> None:
    held = bytearray(600 * 10**6)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(600)


def tell_gpus() -> None:
    print(f"sees {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
    time.sleep(600)
