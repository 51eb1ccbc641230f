// Bundles src/ into ../static: one file for each entry point, named by its content, and a list of their names.
// Written beside the target and moved there whole, so that a server that starts meanwhile finds one or the other.
import {build} from "esbuild";
import {mkdir, rename, rm, writeFile} from "node:fs/promises";
import {basename, dirname, join} from "node:path";
import {fileURLToPath} from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "static");
const made = `${target}.new`;
await rm(made, {recursive: true, force: true});
await mkdir(made, {recursive: true});
/** @type {Record<string, string>} */
const names = {};

/** @param {string[]} entryPoints @param {"esm" | "iife"} format */
async function bundle(entryPoints, format) {
  const {metafile} = await build({
    absWorkingDir: here,
    entryPoints,
    bundle: true,
    minify: true,
    format,
    target: "es2022",
    legalComments: "none",
    entryNames: "[name]-[hash]",
    outdir: made,
    metafile: true,
    logLevel: "warning",
  });
  for (const [output, {entryPoint}] of Object.entries(metafile.outputs)) {
    if (entryPoint) names[basename(entryPoint)] = basename(output);
  }
}
await bundle(["src/dashboard.js", "src/metrics.js", "src/analyses.js", "src/operations.js", "src/style.css"], "esm");
// Pages of others load it with a plain script element.
await bundle(["src/telemetry.js"], "iife");
await writeFile(join(made, "manifest.json"), JSON.stringify(names));
await rm(target, {recursive: true, force: true});
await rename(made, target);
