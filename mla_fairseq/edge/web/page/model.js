// A folder that mla-export wrote: its files, checked, and its graphs.

const FORMAT = 1; // of config.json
const GRAPHS = ["frontend", "encoder", "reader", "decoder"];
const CHANGED = /^(next|new)\./; // outputs that are the next value of a state, or new rows of it
const DAMAGED = "copy the whole folder to the server again";

/** Steps of a model: pure functions of tensors, and of a state that begins with zeros. */
export class Model {
  constructor(ort, config, symbols, graphs) {
    Object.assign(this, { ort, config, symbols, graphs });
    this.states = mapValues(graphs, (graph) => {
      const inputs = [...graphs.decoder.inputMetadata, ...graph.inputMetadata]; // the decoder has the reader's rings
      const known = Object.fromEntries(inputs.map((input) => [input.name, input]));
      const changed = graph.outputNames.filter((name) => CHANGED.test(name));
      return changed.map((name) => known[name.replace(CHANGED, "")]);
    });
  }

  /** Return the state of a graph before its first step. */
  fresh(part) {
    return Object.fromEntries(this.states[part].map(({ name, type, shape }) => [name, this.zeros(type, shape)]));
  }

  /** Return the outputs of a step, and the state after it; rings of the state are changed. */
  async step(part, data, state = {}) {
    const graph = this.graphs[part];
    const given = { ...data, ...state };
    const outputs = await graph.run(Object.fromEntries(graph.inputNames.map((name) => [name, given[name]])));
    const next = (name) => outputs[`next.${name}`] ?? write(state[name], outputs[`new.${name}`], outputs.slot);
    return { outputs, state: mapKeys(state, next) };
  }

  zeros(type, shape) {
    const size = shape.reduce((product, length) => product * length, 1);
    return new this.ort.Tensor(type, type === "int64" ? new BigInt64Array(size) : new Float32Array(size), shape);
  }

  floats(values, shape) {
    return new this.ort.Tensor("float32", values, shape);
  }

  /** Return a tensor (N,) of integers. */
  integers(...values) {
    return new this.ort.Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
  }

  /** What the encoder's boundary output needs, or null. */
  get boundary() {
    return this.config.boundary;
  }

  /** Hypotheses of a step of the decoder; this runtime follows one. */
  get beam() {
    return this.graphs.decoder.inputMetadata.find(({ name }) => name === "tokens").shape[0];
  }
}

/** Write new rows (B, H, n, D) into a ring (B, H, slots, D) from a slot on; after the last slot, into the first. */
function write(ring, rows, slot) {
  const [streams, heads, count, width] = rows.dims;
  const slots = ring.dims[2];
  const first = Number(slot.data[0]);
  const before = Math.min(count, slots - first); // rows before the last slot is filled
  for (let head = 0; head < streams * heads; head += 1) {
    const own = rows.data.subarray(head * count * width, (head + 1) * count * width);
    ring.data.set(own.subarray(0, before * width), (head * slots + first) * width);
    if (before < count) ring.data.set(own.subarray(before * width), head * slots * width);
  }
  return ring;
}

/** Load a model; `read(name)` returns the bytes of a file. */
export async function loadModel(ort, read) {
  const config = parseConfig(text(await read("config.json")));
  const symbols = parseSymbols(text(await checked(config, ["tokens.txt"], read)));
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
  const graphs = {};
  for (const part of GRAPHS) {
    // of both kinds, the smaller one
    const file = await checked(config, [`${part}.int8.onnx`, `${part}.onnx`], read);
    graphs[part] = await ort.InferenceSession.create(file, options);
  }
  return new Model(ort, config, symbols, graphs);
}

function parseConfig(json) {
  let config;
  try {
    config = JSON.parse(json);
  } catch {
    throw new Error(`config.json is not complete: ${DAMAGED}`);
  }
  if (config?.format !== FORMAT || config.type !== "speech-to-text" || !config.files) {
    throw new Error("config.json is not of a model for speech translation that this page knows: export it again");
  }
  if (config.policy?.type !== "waitk") {
    throw new Error(`this page cannot follow the policy of the model (${config.policy?.type}): use mla-edge`);
  }
  return config;
}

/** Return the symbols in lines such as "piece 4". */
function parseSymbols(lines) {
  return lines.split("\n").filter(Boolean).map((line) => line.slice(0, line.lastIndexOf(" ")));
}

/** Read the first of some files that the folder has; only pages from localhost and over https can compute its sum. */
async function checked({ files }, names, read) {
  const name = names.find((each) => files[each]);
  if (!name) throw new Error(`the folder has no ${names.at(-1)}: ${DAMAGED}`);
  const bytes = await read(name);
  const sum = globalThis.crypto?.subtle && hex(await crypto.subtle.digest("SHA-256", bytes));
  if (bytes.byteLength !== files[name].bytes || (sum && sum !== files[name].sha256)) {
    throw new Error(`${name} is damaged: ${DAMAGED}`);
  }
  return bytes;
}

const text = (bytes) => new TextDecoder().decode(bytes);
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
const mapValues = (object, change) => mapKeys(object, (key) => change(object[key]));
const mapKeys = (object, value) => Object.fromEntries(Object.keys(object).map((key) => [key, value(key)]));
