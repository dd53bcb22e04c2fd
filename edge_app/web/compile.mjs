// Compiles Python's files for the page by the page's own Python, under Node:
// node compile.mjs PYODIDE IN.zip OUT.zip ...
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [pyodide, ...files] = process.argv.slice(2);
const { loadPyodide } = createRequire(import.meta.url)(path.resolve(pyodide, "pyodide.js"));
const python = await loadPyodide({ indexURL: path.resolve(pyodide) + path.sep });
python.runPython(`
import io, marshal, struct, zipfile
from importlib.util import MAGIC_NUMBER

def bare(code):
    # Nobody reads the lines of numpy's or the library's own tracebacks here.
    inner = tuple(bare(one) if hasattr(one, "co_code") else one for one in code.co_consts)
    return code.replace(co_consts=inner, co_linetable=b"")

def compiled(name, source):
    # Documentation of numpy's and of the library is for nobody here; Pyodide reads its own.
    ours = name.startswith(("dermedge/", "edge_app/", "_pyodide/", "pyodide/")) or "/" not in name
    code = compile(source, name, "exec", dont_inherit=True, optimize=0 if ours else 2)
    if not ours:
        code = bare(code)
    # By a hash that nobody compares, PEP 552: a time would differ from build to build.
    return MAGIC_NUMBER + struct.pack("<I8x", 1) + marshal.dumps(code)

def pack(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(buffer, "w") as made:
        for entry in given.infolist():
            name, data = entry.filename, given.read(entry)
            if name.endswith(".py"):
                name, data = name + "c", compiled(name, data)
            made.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()
`);
const pack = python.globals.get("pack");
for (let i = 0; i < files.length; i += 2) {
  const content = python.toPy(new Uint8Array(fs.readFileSync(files[i])));
  const made = pack(content.tobytes());
  fs.writeFileSync(files[i + 1], made.toJs());
}
process.exit(0);
