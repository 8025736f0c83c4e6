// Where the code of the console is.

export const at = (name) =>
  new URL(`../../../../../server/gpuarbiter_server/web/console/static/${name}`, import.meta.url).href;
