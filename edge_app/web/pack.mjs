// Packs files by Brotli, at a quality of 0 to 11, beside them: node pack.mjs QUALITY FILE ...
import fs from "node:fs";
import { promisify } from "node:util";
import zlib from "node:zlib";

const [quality, ...files] = process.argv.slice(2);
const brotli = promisify(zlib.brotliCompress), { constants } = zlib;
await Promise.all(files.map(async (file) => {
  const content = fs.readFileSync(file);
  fs.writeFileSync(`${file}.br`, await brotli(content, { params: {
    [constants.BROTLI_PARAM_QUALITY]: Number(quality),
    [constants.BROTLI_PARAM_LGWIN]: 24,
    [constants.BROTLI_PARAM_SIZE_HINT]: content.length,
  } }));
}));
