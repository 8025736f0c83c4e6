/** Stands for a model. */
export const audio = Buffer.alloc(32_000);

export function transcribe(input: Buffer, devices: string | undefined): string {
  return `${input.length} bytes on ${devices}`;
}
