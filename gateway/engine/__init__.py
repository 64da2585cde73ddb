"""The payment engine: state machine, step, effects, the tick loop."""
