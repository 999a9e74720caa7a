// Ingests one signal twice and prints what RiskCast said, as JSON.
// Usage: node client.js HOST:PORT FOLDER_OF_PROTOS
"use strict";

const { createHash } = require("node:crypto");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [target, protos] = process.argv.slice(2);
const files = ["riskcast/v1/ingest_service.proto", path.join(__dirname, "rpc_status.proto")];
const types = loader.loadSync(files, { includeDirs: [protos], keepCase: true, longs: String, enums: String });
const { IngestService } = grpc.loadPackageDefinition(types).riskcast.v1;

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

function event() {
  const now = { seconds: Math.floor(Date.now() / 1000), nanos: 0 };
  const observation = '{"source":"node","source_class":5,"source_event_id":"node:1","title":"A port strike"}';
  const hash = `sha256:${sha256(observation)}`;
  const digest = sha256(`node:1|${hash}|1.0.0`);
  return {
    schema_version: "1.0.0",
    signal_id: `OMEN-${digest.slice(0, 12).toUpperCase()}`,
    deterministic_trace_id: digest.slice(0, 16),
    input_event_hash: hash,
    source: "node",
    source_event_id: "node:1",
    ruleset_version: "1.0.0",
    observed_at: now,
    emitted_at: now,
    canonical_observation: Buffer.from(observation),
    signal: {
      title: "A port strike",
      signal_type: "SIGNAL_TYPE_LABOR",
      status: "SIGNAL_STATUS_ACTIVE",
      category: "SIGNAL_CATEGORY_LABOR",
      probability: 0.25,
      probability_source: "node:stated",
      probability_is_estimate: true,
      price_basis: "PRICE_BASIS_STATED",
      confidence_score: 0.75,
      confidence_level: "CONFIDENCE_LEVEL_HIGH",
      confidence_method: "by-hand/1",
      source_class: "SOURCE_CLASS_NEWS",
      generated_at: now,
    },
  };
}

function detail(status, name) {
  const found = status.details.find((one) => one.type_url.endsWith(`/${name}`));
  return types[name].deserialize(found.value);
}

function refusal(error) {
  const status = types["google.rpc.Status"].deserialize(error.metadata.get("grpc-status-details-bin")[0]);
  const info = detail(status, "google.rpc.ErrorInfo");
  const duplicate = detail(status, "riskcast.v1.DuplicateSignal");
  return {
    code: grpc.status[error.code],
    reason: info.reason,
    domain: info.domain,
    ack_id: duplicate.ack_id,
    content_matches: duplicate.content_matches,
    trailer: error.metadata.get("original-ack-id")[0],
  };
}

async function main() {
  const client = new IngestService(target, grpc.credentials.createInsecure());
  const request = { event: event() };
  const ingest = () =>
    new Promise((resolve) => {
      const deadline = Date.now() + 10_000;
      client.Ingest(request, { deadline }, (error, response) => resolve({ error, response }));
    });
  const first = await ingest();
  if (first.error) throw first.error;
  const second = await ingest();
  client.close();
  const sent = { signal_id: request.event.signal_id, input_event_hash: request.event.input_event_hash };
  process.stdout.write(JSON.stringify({ sent, stored: first.response.ack_id, repeat: refusal(second.error) }));
}

main();
