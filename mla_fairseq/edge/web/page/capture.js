// The audio worklet: samples of the microphone, mixed to one channel, in blocks.

const BLOCK = 2048; // samples

registerProcessor(
  "capture",
  class extends AudioWorkletProcessor {
    block = new Float32Array(BLOCK);
    filled = 0;

    constructor() {
      super();
      this.port.onmessage = () => {
        this.post();
        this.port.postMessage(null); // all samples so far are on their way
      };
    }

    process([channels]) {
      const length = channels[0]?.length ?? 0; // no channel while the microphone starts
      for (let i = 0; i < length; i += 1) {
        let sum = 0;
        for (const channel of channels) sum += channel[i];
        this.block[this.filled] = sum / channels.length;
        this.filled += 1;
        if (this.filled === BLOCK) this.post();
      }
      return true;
    }

    post() {
      if (this.filled) this.port.postMessage(this.block.slice(0, this.filled));
      this.filled = 0;
    }
  },
);
