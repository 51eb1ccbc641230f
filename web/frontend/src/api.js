// Asking the API. Failures become sentences for the page.

/** @typedef {import("./types").Metric} Metric */

export class Refused extends Error {
  /**
   * @param {string} sentence
   * @param {number} status 0 when there was no answer at all
   * @param {string[]} suggestions
   */
  constructor(sentence, status, suggestions = []) {
    super(sentence);
    this.status = status;
    this.suggestions = suggestions;
  }
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function ask(path, signal) {
  let answer;
  try {
    answer = await fetch(path, {signal});
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused("The server does not answer. The page tries again by itself.", 0);
  }
  if (answer.ok) return answer.json();
  const text = await answer.text();
  try {
    const {error} = JSON.parse(text);
    throw new Refused(error.sentence, answer.status, error.suggestions ?? []);
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(text.trim() || `The server answers ${answer.status}.`, answer.status);
  }
}
