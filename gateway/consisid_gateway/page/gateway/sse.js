// Server-sent events from a stream of text; EventSource cannot send an Authorization header.

/** Takes pieces of text, cut anywhere, and gives the events that are complete. */
export class Parser {
  #rest = "";
  #data = [];
  #type = "";
  id = "";

  push(text) {
    const events = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") this.#end(events);
      else this.#read(line);
    }
    return events;
  }

  #read(line) {
    const [, name, value] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line);
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id") this.id = value;
  }

  #end(events) {
    if (this.#data.length) events.push({ type: this.#type || "message", id: this.id, data: this.#data.join("\n") });
    this.#data = [];
    this.#type = "";
  }
}
