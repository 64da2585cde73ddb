// A wallet and a terminal in one: a token, a one-time code, a payment with it, what happened to it, and a refund.
//
//     npm ci
//     node pay.mjs --target 127.0.0.1:50050 --issuer issuer-a --account 6217000130000009 --merchant m1001 --amount 1250
//
// For a network such as that of `hutong up --accounts`. Prints JSON lines; exits with 1 where nothing was paid.
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { HutongError, call, connect, watch } from './hutong.mjs';

const WALLET = '10000000002'; // the requestor (TRID) of wallets, which every token service has from the start
const FINAL = /_(SUCCEEDED|DECLINED|FAILED|CANCELLED|EXPIRED)$/;

const { values: asked } = parseArgs({
  options: {
    target: { type: 'string', default: '127.0.0.1:50050' },
    issuer: { type: 'string', default: 'issuer-a' },
    account: { type: 'string' },
    merchant: { type: 'string', default: 'm1001' },
    amount: { type: 'string', default: '1250' },
  },
});

const say = (what, value) => console.log(JSON.stringify({ [what]: value }));

async function main() {
  const { payments, tokens } = connect(asked.target);
  const { token } = await call(tokens, 'RequestToken', {
    requestor_id: WALLET,
    issuer_id: asked.issuer,
    account_number: asked.account,
  });
  const { code } = await call(tokens, 'ReserveCode', { requestor_id: WALLET, name: { token } });

  const request = {
    idempotency_key: randomUUID(), // of this payment: a repeat with it is paid once
    payer: { payment_code: code },
    payee: { merchant: { merchant_id: asked.merchant } },
    amount_minor: asked.amount, // minor units: 1250 is 12.50
    currency: 'CNY',
  };
  const { payment } = await call(payments, 'CreatePayment', request);
  const ended = await settled(payments, payment);
  say('payment', ended);
  if (ended.state !== 'PAYMENT_STATE_SUCCEEDED') return 1;

  // The same request again gets the same answer; the same code in another payment is refused.
  const again = await call(payments, 'CreatePayment', request);
  say('same_payment', again.payment.payment_id === payment.payment_id);
  try {
    await call(payments, 'CreatePayment', { ...request, idempotency_key: randomUUID() });
    return 1;
  } catch (error) {
    if (!(error instanceof HutongError)) throw error;
    say('refused', { reason: error.reason, fields: error.fields });
  }

  const { refund } = await call(payments, 'RefundPayment', {
    idempotency_key: randomUUID(),
    payment_id: payment.payment_id,
  });
  say('refund', await settled(payments, refund));
  return 0;
}

// The payment once it has ended: itself, or watched until it has. Throws where the stream ends before.
async function settled(payments, payment) {
  if (FINAL.test(payment.state)) return payment;
  const stream = watch(payments, { payment_id: payment.payment_id });
  try {
    for await (const { events } of stream) {
      if (events.some((event) => FINAL.test(event.state))) {
        return (await call(payments, 'GetPayment', { payment_id: payment.payment_id })).payment;
      }
    }
  } finally {
    stream.cancel();
  }
  throw new Error(`payment ${payment.payment_id} has not ended`);
}

try {
  process.exit(await main());
} catch (error) {
  console.error(error instanceof HutongError ? `${error.message} ${JSON.stringify(error.fields)}` : error.message);
  process.exit(1);
}
