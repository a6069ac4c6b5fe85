// Counts gradio's events as they begin and end, for tests that wait for them, and keeps their answers from being lost.
//
// The server ends its stream of answers when it knows of no event any more, and gradio's client closes it then. An
// event that was asked for meanwhile has no stream until the next one is asked for (gradio 4.40; a busy machine is
// enough). Here such a stream goes on: tests look at this extension, not at that.
(() => {
    const asked = new Set();
    const ended = new Set();
    let asking = 0;
    let direct = 0;

    const pending = () => asking + [...asked].filter((id) => !ended.has(id)).length;

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

    async function* messages(stream) {
        const decoder = new TextDecoder();
        let text = "";
        for await (const chunk of stream) {
            text += decoder.decode(chunk, { stream: true });
            const parts = text.split("\n\n");
            text = parts.pop();
            yield* parts;
        }
    }

    // Passes answers on; returns the message that closes the stream, or undefined where it ends without.
    async function pass(stream, controller) {
        const encoder = new TextEncoder();
        for await (const message of messages(stream)) {
            const { msg, event_id: id } = JSON.parse(message.replace(/^data:/, ""));
            if (msg === "process_completed") {
                ended.add(id);
            }
            const encoded = encoder.encode(`${message}\n\n`);
            if (msg === "close_stream") {
                return encoded;
            }
            controller.enqueue(encoded);
        }
    }

    async function unanswered() {
        while (asking) {
            await new Promise((resolve) => setTimeout(resolve, 10));
        }
        return pending() > 0;
    }

    async function passAll(stream, open, controller) {
        let close = await pass(stream, controller);
        while (close && (await unanswered())) {
            close = await pass((await open()).body, controller);
        }
        if (close) {
            controller.enqueue(close);
        }
        controller.close();
    }

    const fetched = window.fetch;
    window.fetch = async (input, options) => {
        const address = String(input.url ?? input);
        const open = () => fetched(input, options);
        const response = open();
        if (address.includes("/queue/join")) {
            queued(response);
        } else if (address.includes("/run/")) {
            unqueued(response);
        }
        if (!address.includes("/queue/data")) {
            return response;
        }
        const { body, status, statusText, headers } = await response;
        const passed = new ReadableStream({
            start(controller) {
                // An error is the page's own: it has left the stream.
                passAll(body, open, controller).catch((error) => controller.error(error));
            },
        });
        return new Response(passed, { status, statusText, headers });
    };

    window.testGradio = { answers: () => ended.size + direct, pending };
})();
