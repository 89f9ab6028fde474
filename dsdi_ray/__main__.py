"""``python -m dsdi_ray`` is the ``dsdi`` command."""

from dsdi_ray.cli import main

if __name__ == "__main__":
    main()
