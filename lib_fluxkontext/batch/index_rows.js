"use strict";
// The index of a batch: reads the rows that follow it in the page, and shows, filters and sorts them. What a row says is
// only ever set as text. Filter and order stand in the address, so that they outlive a reload and can be passed on.

const FEW = 24; // values of a column, at most, that make a menu
const columns = new Map(); // name → {name, values: Map(text → count), numeric}
const entries = new Map(); // key → entry
const measured = new Set(); // names of columns that say what a row cost
let known; // defaults of columns that a row does not write; what a preset sets
let shown = []; // in their order
let state = {};

const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
        if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
        else made[name] = value;
    }
    made.append(...children.filter((child) => child !== null));
    return made;
}

function seconds(value) {
    if (value === null || value === undefined) return "–";
    if (value < 0.1) return `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms`;
    if (value < 120) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
    return value < 7200 ? `${(value / 60).toFixed(0)} min` : `${(value / 3600).toFixed(1)} h`;
}

const gigabytes = (value) => (value === null || value === undefined ? "–" : `${(value / 2 ** 30).toFixed(2)} GB`);
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const local = (time) => (time ? new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "–");

// ---------------------------------------------------------------------------------------------- reading

/** Read every whole line that the page has; a line that is broken is no row. */
function read() {
    const notes = {};
    for (const script of document.querySelectorAll("script[data-key], script[data-note]")) {
        let value = null;
        try {
            value = JSON.parse(script.textContent);
        } catch {
            continue; // cut off in the middle of writing
        } finally {
            script.remove(); // or the page would hold every thumbnail twice
        }
        if (script.hasAttribute("data-note")) Object.assign(notes, value);
        else entries.set(value.key, prepare(value)); // a row that was tried again replaces its failure
    }
    for (const entry of entries.values()) {
        for (const [name, value] of Object.entries(entry.columns)) {
            if (!columns.has(name)) columns.set(name, { name, values: new Map(), numeric: true });
            const column = columns.get(name);
            column.values.set(text(value), (column.values.get(text(value)) ?? 0) + 1);
            column.numeric &&= typeof value === "number";
        }
    }
    return notes;
}

function prepare(entry) {
    known ??= JSON.parse($("columns").textContent);
    entry.columns = { state: entry.state, ...entry.columns, ...entry.numbers }; // in the order that they are shown in
    for (const [name, value] of Object.entries(known.defaults)) entry.columns[name] ??= value;
    for (const name of Object.keys(entry.numbers)) measured.add(name);
    entry.search = Object.values(entry.columns).map(text).join("\n").toLowerCase();
    entry.thumb = entry.thumbnail ? `data:image/jpeg;base64,${entry.thumbnail}` : entry.picture;
    return entry;
}

const text = (value) => (typeof value === "number" && !Number.isInteger(value) ? String(+value.toPrecision(4)) : String(value));

/** Columns that differ from row to row. */
const differing = () => [...columns.values()].filter((column) => column.values.size > 1);
const menus = () => differing().filter(({ name, values }) => values.size <= FEW && !measured.has(name) && !saidAlready(name));

/** Where every row is a preset, its name says what a column for each of its settings would repeat. */
function saidAlready(name) {
    const presets = columns.get("preset")?.values;
    return ["line", "finished"].includes(name) || (presets?.size > 1 && !presets.has(known.custom) && known.preset.includes(name));
}

// ---------------------------------------------------------------------------------------------- filter and order

function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    state = { q: "", sort: "number", down: false, size: "S", filters: {}, open: null, compare: [] };
    for (const [name, value] of given) {
        if (name.startsWith("is.")) state.filters[name.slice(3)] = value;
        else if (name === "compare") state.compare = value.split(",").filter((key) => entries.has(key)).slice(0, 2);
        else if (name === "down") state.down = true;
        else if (name in state) state[name] = value;
    }
    if (!columns.has(state.sort)) state.sort = "number";
    if (!entries.has(state.open)) state.open = null;
}

function writeAddress() {
    const written = new URLSearchParams();
    if (state.q) written.set("q", state.q);
    for (const [name, value] of Object.entries(state.filters)) written.set(`is.${name}`, value);
    if (state.sort !== "number") written.set("sort", state.sort);
    if (state.down) written.set("down", "1");
    if (state.size !== "S") written.set("size", state.size);
    if (state.open) written.set("open", state.open);
    if (state.compare.length) written.set("compare", state.compare.join(","));
    history.replaceState(null, "", `#${written}`);
    for (const link of document.querySelectorAll(".pages a")) link.hash = `#${withoutPictures(written)}`;
}

function withoutPictures(address) {
    const copy = new URLSearchParams(address);
    copy.delete("open");
    copy.delete("compare");
    return copy;
}

/** Return tests for every word of the search: plain words, and column:value, column>1, column<1. */
function tests(query) {
    const names = [...columns.keys()].sort((a, b) => b.length - a.length);
    const words = query.toLowerCase().match(/(?:[^\s"]*"[^"]*"?|[^\s"]+)+/g) ?? [];
    return words.map((word) => {
        const [, left, sign, right] = word.match(/^([^:<>]+)([:<>])(.+)$/) ?? [];
        const wanted = left?.replaceAll("_", " ").replaceAll('"', "");
        const name = wanted && names.find((known) => known.replaceAll("_", " ").toLowerCase() === wanted);
        const plain = word.replaceAll('"', "");
        if (!name) return (entry) => entry.search.includes(plain);
        const value = right.replaceAll('"', "");
        if (sign === ">") return (entry) => entry.columns[name] > Number(value);
        if (sign === "<") return (entry) => entry.columns[name] < Number(value);
        const exact = columns.get(name).numeric;
        return (entry) => {
            const own = text(entry.columns[name] ?? "").toLowerCase();
            return exact ? own === value : own.includes(value);
        };
    });
}

function select() {
    const words = tests(state.q);
    const filters = Object.entries(state.filters);
    shown = [...entries.values()].filter(
        (entry) =>
            filters.every(([name, value]) => text(entry.columns[name] ?? "") === value) &&
            words.every((matches) => matches(entry)),
    );
    const { sort, down } = state;
    const collator = new Intl.Collator("en", { numeric: true });
    const missing = (entry) => entry.columns[sort] === undefined; // last, whichever way
    shown.sort((one, other) => {
        if (missing(one) || missing(other)) return missing(one) - missing(other) || one.number - other.number;
        const [a, b] = [one.columns[sort], other.columns[sort]];
        const order = typeof a === "number" && typeof b === "number" ? a - b : collator.compare(text(a), text(b));
        return (down ? -order : order) || one.number - other.number;
    });
}
