// Counts gradio's events as they begin and end, for tests that wait for them. Streams tell nothing: one is shared by
// many events, and one that was opened for an event whose answer came over the last stream stays open.
(() => {
    const asked = new Set();
    const ended = new Set();
    let asking = 0;
    let direct = 0;

    // An event that goes through the queue: the reply names it, its answer comes in a stream.
    async function queued(response) {
        asking += 1;
        try {
            const { event_id: id } = await (await response).clone().json();
            asked.add(id);
        } catch {
            // Nothing was started.
        } finally {
            asking -= 1;
        }
    }

    // An event past the queue: the reply is its answer.
    async function unqueued(response) {
        asking += 1;
        await Promise.allSettled([response]);
        asking -= 1;
        direct += 1;
    }

    async function listen(stream) {
        const decoder = new TextDecoder();
        let text = "";
        try {
            for await (const chunk of stream) {
                text += decoder.decode(chunk, { stream: true });
                const lines = text.split("\n");
                text = lines.pop();
                for (const line of lines.filter((one) => one.startsWith("data:"))) {
                    const message = JSON.parse(line.slice("data:".length));
                    if (message.msg === "process_completed") {
                        ended.add(message.event_id);
                    }
                }
            }
        } catch {
            // The page closed the stream.
        }
    }

    const fetched = window.fetch;
    window.fetch = async (input, options) => {
        const address = String(input.url ?? input);
        const response = fetched(input, options);
        if (address.includes("/queue/join")) {
            queued(response);
        } else if (address.includes("/run/")) {
            unqueued(response);
        }
        if (!address.includes("/queue/data")) {
            return response;
        }
        const { body, status, statusText, headers } = await response;
        const [theirs, ours] = body.tee();
        listen(ours);
        return new Response(theirs, { status, statusText, headers });
    };

    window.testGradio = {
        answers: () => ended.size + direct,
        pending: () => asking + [...asked].filter((id) => !ended.has(id)).length,
    };
})();
