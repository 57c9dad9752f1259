// The plugin word-count in JavaScript, to measure a fresh instance and a call.
export const handler = {
  handle(task) {
    const { text } = JSON.parse(task.input);
    const words = text.split(/\s+/u).filter((word) => word !== "").length;
    const lines = text === "" ? 0 : text.replace(/\n$/u, "").split("\n").length;
    return JSON.stringify({ words, lines, characters: [...text].length, bytes: new TextEncoder().encode(text).length });
  },
};
