// Audio: the microphone, and files.

import { RATE } from "./detectors.js";

export const INSECURE = "Browsers allow the microphone only at localhost or over https. You can open a file.";

export class Microphone {
  /** Open it; `hear` gets samples in [-1, 1], and `unplugged` is called when it is gone. */
  static async open(hear, unplugged) {
    // a browser's cleaning for telephone calls changes speech that models know otherwise
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const microphone = new Microphone();
    microphone.stream = await navigator.mediaDevices.getUserMedia({ audio });
    microphone.context = new AudioContext();
    try {
      await microphone.connect(hear);
    } catch (error) {
      microphone.close();
      throw error;
    }
    microphone.stream.getAudioTracks()[0].onended = unplugged;
    return microphone;
  }

  async connect(hear) {
    await this.context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    this.node = new AudioWorkletNode(this.context, "capture");
    this.node.port.onmessage = ({ data }) => (data ? hear(data) : this.flushed());
    // a browser runs only what leads to the loudspeaker; the node sends silence there
    this.context.createMediaStreamSource(this.stream).connect(this.node).connect(this.context.destination);
    await this.context.resume();
  }

  get rate() {
    return Math.round(this.context.sampleRate);
  }

  /** Stop, after the samples that do not fill a block. */
  async pause() {
    await new Promise((resolve) => {
      this.flushed = resolve;
      this.node.port.postMessage(null);
      setTimeout(resolve, 500); // the worklet of a browser that sleeps does not answer
    });
    if (this.context.state === "running") await this.context.suspend();
  }

  resume() {
    return this.context.resume();
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
    this.context.close();
  }
}

/** Return why there is no microphone, and what to do. */
export function refusal({ name, message }) {
  if (!navigator.mediaDevices) return INSECURE;
  const reasons = {
    NotAllowedError: "The microphone was refused. Allow it in the address bar of the browser, then press Start.",
    NotFoundError: "There is no microphone. Connect one and press Start, or open a file.",
    NotReadableError: "The microphone is in use. Close other programs that use it, then press Start.",
  };
  return reasons[name] ?? `The microphone does not work (${message}). Open a file instead.`;
}

/** Return the samples of a file at 16 kHz: a browser resamples while it decodes. */
export async function decode(file) {
  const audio = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  const samples = audio.getChannelData(0);
  for (let channel = 1; channel < audio.numberOfChannels; channel += 1) {
    audio.getChannelData(channel).forEach((sample, i) => (samples[i] += sample));
  }
  return samples.map((sample) => sample / audio.numberOfChannels);
}
