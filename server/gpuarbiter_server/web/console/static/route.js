// Which view is asked for. Pure.

/** "#gpu=gpu%3A0" is {name: "gpu", argument: "gpu:0"}; what makes no sense has no name. */
export function route(hash) {
  const [, name, argument] = /^#?([^=]*)(?:=(.*))?$/s.exec(hash);
  try {
    return { name, argument: argument === undefined ? undefined : decodeURIComponent(argument) };
  } catch {
    return { name: "", argument: undefined };
  }
}
