"""``python -m v3s`` runs the command ``v3s``; ``torchrun -m v3s pretrain ...`` runs it in several processes."""

from v3s.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
