// JavaScript's own `fetch`, unchanged: nothing of Agentry is imported.
export const handler = {
  async handle(task) {
    const { url } = JSON.parse(task.input);
    let response;
    try {
      response = await fetch(url);
    } catch (error) {
      throw { tag: "permanent", val: { message: `fetch: ${error.message}`, code: "fetch_failed" } };
    }
    const header = response.headers.get("x-peer");
    return JSON.stringify({ status: response.status, header, body: await response.text() });
  },
};
