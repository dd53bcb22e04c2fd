"""The browser's road: a static page in which Pyodide runs `dermedge` itself, on the device."""
