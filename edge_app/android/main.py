"""What python-for-android starts: this file lies beside the packages `dermedge` and `edge_app`."""

from edge_app.android.start import main

if __name__ == "__main__":
    raise SystemExit(main())
