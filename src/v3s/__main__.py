"""``python -m v3s`` is the command ``v3s``: ``torchrun -m v3s pretrain ...`` starts it in several processes."""

from v3s.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
