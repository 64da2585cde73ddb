// Hutong from its .proto files alone: the stubs of its services, and calls with deadlines and typed errors.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const here = path.dirname(fileURLToPath(import.meta.url));
const PROTO = process.env.HUTONG_PROTO ?? path.join(here, '..', '..', 'proto');
const DETAILS = 'grpc-status-details-bin';

const definition = protoLoader.loadSync(
  ['hutong/gateway/v1/payment.proto', 'hutong/tokenization/v1/token.proto', 'google/rpc/error_details.proto'],
  // 64-bit integers as strings: a JavaScript number holds amounts up to 2^53 only.
  { includeDirs: [PROTO], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true },
);
const loaded = grpc.loadPackageDefinition(definition);

// A request was refused, for a reason of hutong/status/v1/status.proto.
export class HutongError extends Error {
  constructor(reason, fields, message) {
    super(message);
    this.name = 'HutongError';
    this.reason = reason; // stable, such as "CODE_SPENT"
    this.fields = fields; // what is at fault, name to text
  }
}

// The stubs of a gateway at HOST:PORT. Plaintext: for a gateway on this machine.
export function connect(target) {
  const credentials = grpc.credentials.createInsecure();
  return {
    payments: new loaded.hutong.gateway.v1.PaymentService(target, credentials),
    tokens: new loaded.hutong.tokenization.v1.TokenService(target, credentials),
  };
}

// Calls a unary method; a promise of its answer. Rejects with HutongError where the request was refused, and with the
// ServiceError of grpc-js where there was no answer: then what was asked for may have been done, so repeat it with the
// same idempotency key.
export function call(stub, method, request, { seconds = 30 } = {}) {
  const deadline = new Date(Date.now() + seconds * 1000);
  return new Promise((resolve, reject) => {
    stub[method](request, { deadline }, (error, answer) => (error ? reject(typed(error)) : resolve(answer)));
  });
}

// The events of payments, in order, for `for await`. `request` is a WatchPaymentsRequest.
export function watch(stub, request, { seconds = 30 } = {}) {
  return stub.WatchPayments(request, { deadline: new Date(Date.now() + seconds * 1000) });
}

// Reads google.rpc.Status with its google.rpc.ErrorInfo from the trailer of a failed call.
function typed(error) {
  const [packed] = error.metadata?.get(DETAILS) ?? [];
  if (!packed) return error;
  const info = decode('google.rpc.Status', packed).details.find((one) => one.type_url.endsWith('/google.rpc.ErrorInfo'));
  if (!info) return error;
  const { reason, metadata } = decode('google.rpc.ErrorInfo', info.value);
  return new HutongError(reason, metadata, error.details);
}

// proto-loader gives every message type a codec, beside the descriptor for reflection.
function decode(type, bytes) {
  return definition[type].deserialize(Buffer.from(bytes));
}
