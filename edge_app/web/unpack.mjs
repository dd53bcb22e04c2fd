// Unpacks files of a site: node unpack.mjs FILE.br..., each to FILE.br.raw
import { readFileSync, writeFileSync } from "node:fs";
import { brotliDecompressSync } from "node:zlib";

for (const path of process.argv.slice(2))
  writeFileSync(`${path}.raw`, brotliDecompressSync(readFileSync(path)));
