// One picture with all that is known about it, and two pictures with a slider between them.

const KINDS = { computed: "computed", kept: "references kept", reused: "reused", mixed: "mixed" };

function pictures() {
    state.compare = state.compare.filter((key) => entries.get(key)?.state === "done");
    tray();
    for (const dialog of [$("picture"), $("comparison")]) {
        dialog.onclose = () => {
            if (dialog.id === "picture") {
                const { open } = state;
                state.open = null;
                entries.get(open)?.card?.querySelector(".open").focus();
            }
            dialog.replaceChildren();
            writeAddress();
        };
        dialog.onclick = (event) => event.target === dialog && dialog.close(); // beside it
    }
}

const button = (label, properties) => element("button", { className: "button", type: "button", textContent: label, ...properties });

function dialogHead(id, title, ...buttons) {
    const close = button("✕", { className: "button icon", "aria-label": "Close", onclick: () => $(id).close() });
    return element("div", { className: "dialog-head" }, element("h2", { id: `${id}-title`, textContent: title }), ...buttons, close);
}

function dialogKeys(event) {
    if (!$("picture").open || event.target.matches("input")) return;
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (way) step(way);
    if (event.key === "c" && entries.get(state.open).state === "done") pick(state.open);
}

function step(way) {
    const next = shown[shown.findIndex((entry) => entry.key === state.open) + way];
    if (next) openPicture(next.key);
}

// ---------------------------------------------------------------------------------------------- one picture

function openPicture(key) {
    const entry = entries.get(key);
    const place = shown.indexOf(entry);
    state.open = key;
    const previous = button("←", { className: "button icon", "aria-label": "Previous picture", disabled: place <= 0, onclick: () => step(-1) });
    const next = button("→", { className: "button icon", "aria-label": "Next picture", disabled: place < 0 || place === shown.length - 1, onclick: () => step(1) });
    const compare = button("Compare", { onclick: () => pick(key), id: "picture-pick", hidden: entry.state !== "done" });
    const title = `Picture ${entry.number}${place < 0 ? "" : ` · ${place + 1} of ${shown.length}`}`;
    const focused = document.activeElement?.getAttribute("aria-label"); // stays where it was, from picture to picture
    $("picture").replaceChildren(dialogHead("picture", title, previous, next, compare), element("div", { className: "sheet" }, stage(entry), told(entry)));
    pressed();
    if (!$("picture").open) $("picture").showModal();
    else [previous, next].find((each) => each.getAttribute("aria-label") === focused && !each.disabled)?.focus();
    writeAddress();
}

/** The picture itself, or a slider between it and one of the photos that it was made from. */
function stage(entry) {
    const made = element("div", { className: "stage" });
    if (entry.state !== "done") {
        made.append(element("p", { className: "note bad", textContent: entry.reason ?? "failed" }));
        return made;
    }
    const alone = () => element("a", { href: entry.picture, target: "_blank", title: "Open the file" }, element("img", { className: "full", src: entry.picture, alt: entry.prompt }));
    const ways = [["Picture", alone]];
    entry.images.forEach((image, index) => ways.push([`Against ${entry.images.length > 1 ? `photo ${index + 1}` : "the photo"}`, () => slider({ link: image.link, label: image.name }, { link: entry.picture, label: "Picture" }, entry.size)]));
    const choices = element("div", { className: "ways", role: "group", "aria-label": "What is shown" });
    for (const [label, view] of ways) {
        const show = () => {
            made.firstElementChild.replaceWith(view());
            for (const each of choices.children) each.setAttribute("aria-pressed", String(each === choice));
        };
        const choice = button(label, { onclick: show, "aria-pressed": String(label === "Picture") });
        choices.append(choice);
    }
    made.append(alone());
    if (ways.length > 1) made.append(choices);
    return made;
}

function told(entry) {
    const side = element("div", { className: "told" }, element("p", { className: "prompt", textContent: entry.prompt || "(no prompt)" }));
    const { report } = entry;
    if (entry.state === "failed" && entry.field) side.append(element("p", { className: "note bad", textContent: `Setting at fault: ${entry.field}` }));
    if (report) {
        side.append(tiles(entry, report));
        if (report.steps.length) side.append(element("h3", { textContent: "Steps" }), chart(report.steps));
        for (const note of report.notes) side.append(element("p", { className: "note", textContent: note }));
    }
    side.append(element("h3", { textContent: "Settings" }), settings(entry, false));
    side.append(element("details", {}, element("summary", { textContent: "What was left at its default" }), settings(entry, true)));
    if (entry.infotext) side.append(element("details", {}, element("summary", { textContent: "Generation parameters, to paste into Forge" }), element("pre", { textContent: entry.infotext })));
    return side;
}

/** List what the row asked for, or what it left at its default. */
function settings(entry, atDefault) {
    const list = element("dl", { className: "settings" });
    for (const name of Object.keys(entry.columns)) {
        const value = entry.columns[name];
        if (value === "" || measured.has(name) || ["prompt", "state", "number"].includes(name)) continue;
        if ((name in known.defaults && value === known.defaults[name]) !== atDefault) continue;
        list.append(element("dt", { textContent: name.replaceAll("_", " ") }), element("dd", settingValue(entry, name, value)));
    }
    return list;
}

function settingValue(entry, name, value) {
    const image = /^image(\d)$/.exec(name);
    if (name === "finished") return { textContent: local(value) };
    return image ? { textContent: entry.images[image[1] - 1].name, title: entry.images[image[1] - 1].path } : { textContent: text(value) };
}

function tiles(entry, report) {
    const { memory, steps } = report;
    const share = entry.columns["reused %"];
    const facts = [
        ["Whole row", seconds(entry.seconds)],
        ["Sampling", seconds(entry.columns["sampling seconds"])],
        ["Computed / reused step", `${seconds(report.computed)} / ${seconds(report.reused)}`],
        ["Reused", `${steps.filter(([kind]) => kind === "reused").length} of ${steps.length}${share ? ` (${share.toFixed(0)} %)` : ""}`],
        ["Speed-up", entry.columns["speed-up"] ? `${entry.columns["speed-up"].toFixed(2)}×` : "–"],
    ];
    if (memory?.device) {
        facts.push(["VRAM allocated", gigabytes(memory.allocated)], ["VRAM reserved", gigabytes(memory.reserved)]);
        if (memory.in_use) facts.push(["VRAM, all programs", `${gigabytes(memory.in_use)} of ${gigabytes(memory.total)}`]);
    } else if (memory) facts.push(["Process memory (no CUDA)", gigabytes(memory.process)]);
    const list = element("dl", { className: "tiles" });
    for (const [name, value] of facts) list.append(element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value })));
    if (memory?.spill_suspected) list.append(element("div", {}, element("dt", { textContent: "Card was full" }), element("dd", { textContent: "spill suspected" })));
    return list;
}

/** A bar for each step, as high as it took seconds; a reused one is hollow, so that colour is not needed. */
function chart(steps) {
    const svg = (tag, attributes, ...children) => {
        const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
        for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
        made.append(...children);
        return made;
    };
    const longest = Math.max(...steps.map(([, time]) => time), 1e-9);
    const used = Object.keys(KINDS).filter((kind) => steps.some(([own]) => own === kind));
    const counts = used.map((kind) => `${steps.filter(([own]) => own === kind).length} ${KINDS[kind]}`);
    const label = `${count(steps.length, "step", "steps")}: ${counts.join(", ")}; the longest ${seconds(longest)}`;
    const bars = steps.map(([kind, time], index) => {
        const height = Math.max(1.5, (94 * time) / longest);
        const title = svg("title", {}, `Step ${index + 1}: ${seconds(time)}, ${KINDS[kind] ?? kind}`);
        return svg("rect", { class: kind in KINDS ? kind : "computed", x: index * 10 + 1.5, y: 100 - height, width: 7, height }, title);
    });
    const drawn = svg("svg", { viewBox: `0 0 ${Math.max(steps.length, 8) * 10} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...bars);
    const legend = used.map((kind, index) => element("span", {}, svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("rect", { class: kind, x: 1, y: 1, width: 10, height: 10 })), counts[index]));
    return element("div", { className: "steps" }, drawn, element("p", { className: "legend" }, ...legend, `longest ${seconds(longest)}`));
}

// ---------------------------------------------------------------------------------------------- two pictures

function pick(key) {
    const { compare } = state;
    state.compare = compare.includes(key) ? compare.filter((other) => other !== key) : [...compare, key].slice(-2);
    tray();
    writeAddress();
    if (state.compare.length === 2 && $("picture").open) {
        $("picture").close();
        openComparison();
    }
}

function pressed() {
    for (const entry of entries.values()) {
        const picked = state.compare.includes(entry.key);
        entry.card?.classList.toggle("picked", picked);
        entry.card?.querySelector(".pick")?.setAttribute("aria-pressed", String(picked));
    }
    $("picture-pick")?.setAttribute("aria-pressed", String(state.compare.includes(state.open)));
}

function tray() {
    pressed();
    $("tray").hidden = state.compare.length === 0;
    const pair = state.compare.map((key) => entries.get(key));
    const open = button("Compare", { className: "button main", disabled: pair.length < 2, onclick: openComparison });
    const clear = button("✕", { className: "button icon", "aria-label": "Compare nothing", onclick: () => ((state.compare = []), tray(), writeAddress()) });
    const slots = [0, 1].map((index) => (pair[index] ? element("img", { src: pair[index].thumb, alt: `Picture ${pair[index].number}` }) : element("i", { className: "slot" })));
    const hint = pair.length < 2 ? element("span", { textContent: "Pick one more" }) : null;
    $("tray").replaceChildren(...[...slots, hint, open, clear].filter(Boolean));
}

function openComparison() {
    const pair = state.compare.map((key) => entries.get(key));
    const [left, right] = pair.map((entry) => ({ link: entry.picture, label: pictureName(entry, pair) }));
    const swap = button("Swap", { onclick: () => (state.compare.reverse(), tray(), openComparison()) });
    const parts = pair.map((entry) => `picture ${entry.number}`);
    const title = `${parts[0][0].toUpperCase()}${parts[0].slice(1)} and ${parts[1]}`;
    $("comparison").replaceChildren(
        dialogHead("comparison", title, swap),
        element("div", { className: "stage" }, slider(left, right, pair[1].size)),
        element("div", { className: "table-scroll" }, differences(pair)),
    );
    if (!$("comparison").open) $("comparison").showModal();
    $("comparison").querySelector("input").focus();
    writeAddress();
}

/** Name a picture by what tells it from the other one. */
function pictureName(entry, pair) {
    const telling = captionColumns().filter((column) => pair[0].columns[column] !== pair[1].columns[column]);
    return [`#${entry.number}`, ...telling.map((column) => caption(column, entry.columns[column]))].filter(Boolean).join(" · ");
}

/** The project's slider (comparison.css): the first picture lies over the second, cut off at the slider's value. */
function slider(left, right, [width, height]) {
    const picture = ({ link, label }) => {
        const image = element("img", { src: link, alt: label, draggable: false });
        image.onload = () => {
            const ratio = (image.naturalWidth / image.naturalHeight / width) * height;
            if (Math.abs(ratio - 1) > 0.005) image.className = Math.abs(ratio - 1) < 0.1 ? "cover" : "contain";
        };
        return [image, element("span", { className: "fk-compare-name", "aria-hidden": "true", textContent: label })];
    };
    const input = element("input", { type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": `${left.label} on the left, ${right.label} on the right` });
    const made = element("div", { className: "fk-compare", dir: "ltr" }, ...picture(right), element("div", { className: "fk-compare-before" }, ...picture(left)), input, element("div", { className: "fk-compare-line" }));
    const moved = () => {
        made.style.setProperty("--fk-split", `${input.value}%`);
        input.setAttribute("aria-valuetext", `${input.value} % ${left.label}`);
    };
    made.style.setProperty("--fk-ratio", String(width / height));
    input.oninput = moved;
    moved();
    return made;
}

function differences(pair) {
    const header = element("tr", {}, element("td"), ...pair.map((entry) => element("th", { scope: "col", textContent: `#${entry.number}` })));
    const rows = [...columns.keys()]
        .filter((column) => !["number", "line", "finished", "state"].includes(column) && pair[0].columns[column] !== pair[1].columns[column])
        .map((column) => element("tr", {}, element("th", { scope: "row", textContent: column.replaceAll("_", " ") }), ...pair.map((entry) => element("td", { textContent: text(entry.columns[column] ?? "–") }))));
    return element("table", { className: "differences number" }, element("thead", {}, header), element("tbody", {}, ...rows));
}
