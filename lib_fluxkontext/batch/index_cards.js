// The cards, what is above them, and the keys.

function card(entry) {
    if (entry.card) return entry.card;
    const failed = entry.state === "failed";
    const frame = element("span", { className: "frame" });
    if (failed) frame.append(entry.reason ?? "failed");
    else frame.append(element("img", { loading: "lazy", decoding: "async", alt: "", src: entry.thumb }));
    const [width, height] = entry.size ?? [1, 1];
    frame.style.setProperty("--ratio", String(Math.min(Math.max(width / height, 0.66), 1.8)));
    const facts = captionColumns().map((name) => caption(name, entry.columns[name]));
    facts.unshift(`#${entry.number}`);
    if (!failed) facts.push(seconds(entry.seconds));
    const open = element(
        "button",
        { className: "open", type: "button", onclick: () => openPicture(entry.key) },
        frame,
        element(
            "span",
            { className: "caption" },
            element("span", { className: "prompt", textContent: entry.prompt || "(no prompt)" }),
            element("span", { className: "facts", textContent: facts.filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · ") }),
        ),
    );
    entry.card = element("article", { className: `card ${entry.state}` }, open);
    entry.card.dataset.key = entry.key;
    if (!failed) {
        const name = `Compare picture ${entry.number}`;
        const properties = { className: "pick", type: "button", title: "Compare (C)", "aria-label": name, "aria-pressed": "false" };
        entry.card.append(element("button", { ...properties, textContent: "◐", onclick: () => pick(entry.key) }));
    }
    return entry.card;
}

/** What tells the pictures apart, in a few words below each: columns of few values, the rare ones first. */
function captionColumns() {
    const aside = ["state", "prompt", "made by", "number", "seed"];
    captionColumns.names ??= menus()
        .map(({ name }) => name)
        .filter((name) => !aside.includes(name) && !/^image\d$/.test(name))
        .slice(0, 4)
        .concat(columns.get("seed")?.values.size > 1 ? ["seed"] : []);
    return captionColumns.names;
}

function caption(name, value) {
    if (value === undefined || value === "") return "";
    const short = typeof value === "string" ? value.replace(/^.*[/\\](?=.)/, "").replace(/\.(safetensors|gguf)\b/, "") : text(value);
    const words = name.replace(/^cache_/, "").replaceAll("_", " ");
    if (typeof value === "boolean") return value ? words : `no ${words}`;
    if (typeof value === "string") return short;
    return name === "steps" ? `${short} steps` : `${words} ${short}`;
}

/** With larger cards the pictures themselves are loaded, each as it comes into sight. */
function sharpen() {
    $("cards").dataset.size = state.size;
    for (const entry of entries.values()) {
        const image = entry.card?.querySelector("img");
        const source = state.size === "S" ? entry.thumb : entry.picture;
        if (image && image.getAttribute("src") !== source) image.src = source;
    }
}

function show() {
    select();
    const nothing = element("p", { className: "none", textContent: entries.size ? "Nothing fits this filter." : "No picture yet." });
    $("cards").replaceChildren(...(shown.length ? shown.map(card) : [nothing]));
    sharpen();
    const all = shown.length === entries.size;
    $("shown").textContent = all ? count(shown.length, "row", "rows") : `${shown.length.toLocaleString("en")} of ${count(entries.size, "row", "rows")}`;
    const set = Object.keys(state.filters).length;
    $("filter").textContent = set ? `Filters (${set})` : "Filters";
    $("clear").hidden = !state.q && !set;
    for (const label of document.querySelectorAll(".filters label")) label.classList.toggle("set", label.dataset.name in state.filters);
    writeAddress();
}

function controls() {
    $("search").value = state.q;
    let later = 0;
    $("search").oninput = () => {
        clearTimeout(later);
        later = setTimeout(() => {
            state.q = $("search").value.trim();
            show();
        }, 120);
    };
    const sortable = differing().filter((column) => column.name !== "line");
    $("sort").replaceChildren(...sortable.map(({ name }) => element("option", { value: name, textContent: name.replaceAll("_", " ") })));
    if (!sortable.some((column) => column.name === "number")) $("sort").prepend(element("option", { value: "number", textContent: "number" }));
    $("sort").value = state.sort;
    $("sort").onchange = () => (state.sort = $("sort").value, show());
    const direction = () => {
        $("down").textContent = state.down ? "↓" : "↑";
        $("down").setAttribute("aria-label", state.down ? "Largest first" : "Smallest first");
    };
    direction();
    $("down").onclick = () => (state.down = !state.down, direction(), show());
    $("filters").replaceChildren(...menus().filter(({ name }) => name !== "number").map(menu));
    for (const button of document.querySelectorAll(".sizes .button")) {
        const press = () => button.setAttribute("aria-pressed", String(button.value === state.size));
        press();
        button.onclick = () => {
            state.size = button.value;
            for (const each of document.querySelectorAll(".sizes .button")) each.setAttribute("aria-pressed", String(each === button));
            sharpen();
            writeAddress();
        };
    }
    $("filter").onclick = () => $("filter").setAttribute("aria-expanded", String($("filters").classList.toggle("open")));
    $("clear").onclick = () => {
        Object.assign(state, { q: "", filters: {} });
        controls();
        show();
    };
}

function menu({ name, values, numeric }) {
    const order = new Intl.Collator("en", { numeric: true });
    const sorted = [...values].sort(([a], [b]) => (numeric ? a - b : order.compare(a, b)));
    const options = sorted.map(([value, number]) => element("option", { value: `=${value}`, textContent: `${value === "" ? "(none)" : value} (${number})` }));
    const choice = element("select", {}, element("option", { value: "", textContent: "all" }), ...options);
    choice.value = name in state.filters ? `=${state.filters[name]}` : "";
    choice.onchange = () => {
        if (choice.value) state.filters[name] = choice.value.slice(1);
        else delete state.filters[name];
        show();
    };
    const label = element("label", {}, name.replaceAll("_", " "), choice);
    label.dataset.name = name;
    return label;
}

// ---------------------------------------------------------------------------------------------- head and keys

function head(notes) {
    const all = [...entries.values()];
    const failures = all.filter((entry) => entry.state === "failed").length;
    const spent = all.reduce((sum, entry) => sum + (entry.seconds ?? 0), 0);
    const done = all.length - failures;
    const facts = [element("b", { textContent: count(done, "picture", "pictures") })];
    const several = notes.next || $("pages").childElementCount > 1;
    if (several) facts.push(" on this page");
    else if (notes.total) facts.push(` of ${notes.total.toLocaleString("en")}`);
    if (failures) facts.push(" · ", element("button", { className: "button failures", type: "button", textContent: `${failures.toLocaleString("en")} failed`, onclick: () => ((state.filters = { state: "failed" }), controls(), show()) }));
    if (done) facts.push(` · ${seconds(spent / done)} each`);
    $("facts").replaceChildren(...facts);
    const last = all.reduce((latest, entry) => (entry.finished > latest ? entry.finished : latest), "");
    $("written").textContent = last && `${notes.ended ? "Finished" : "Last written"} ${local(last)}`;
    $("reload").onclick = () => location.reload();
    $("progress").hidden = !notes.total || notes.ended || several;
    if (notes.total) $("progress").firstElementChild.style.width = `${Math.min(100, (100 * all.length) / notes.total)}%`;
    if (notes.next) $("pages").append(element("a", { href: notes.next, textContent: `${$("pages").childElementCount + 1}` }));
    $("pages").hidden = $("pages").childElementCount < 2;
}

function keys(event) {
    const typing = event.target.matches?.("input, select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return dialogKeys(event);
    if (event.key === "/" && !typing) {
        event.preventDefault();
        $("search").focus();
    }
    const focused = document.activeElement?.closest?.(".card");
    if (!focused || typing) return;
    if (event.key === "c" && !focused.matches(".failed")) pick(focused.dataset.key);
    const across = getComputedStyle($("cards")).gridTemplateColumns.split(" ").length;
    const way = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (!way) return;
    event.preventDefault();
    const cards = [...$("cards").children];
    const next = cards[cards.indexOf(focused) + way];
    next?.querySelector(".open").focus();
}

document.addEventListener("DOMContentLoaded", () => {
    const notes = read();
    const address = location.hash; // of a page that is reloaded
    readAddress();
    head(notes);
    controls();
    const { open, compare } = state;
    show();
    pictures();
    if (compare.length === 2 && address.includes("compare=")) openComparison();
    else if (open) openPicture(open);
    document.addEventListener("keydown", keys);
    addEventListener("hashchange", () => {
        readAddress();
        controls();
        show();
        pictures();
    });
});
