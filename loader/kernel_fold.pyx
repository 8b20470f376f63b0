# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled fold: rows events in, the last state of each key out, no Python object per row.

It does what `loader.fold.PythonFold` does, byte for byte. Lines of rows stand one
behind the other in an arena, as COPY wants them; an item says where each is and
which key it belongs to. A hash table leads from a key's bytes to its entry, and an
entry to the last item of its key: an item is alive while its entry names it.

A list of events is walked in one go without the GIL, so that the thread that writes
to PostgreSQL goes on meanwhile. Whoever takes events in has the fold for itself.
"""

import struct

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy

from replicator.binlog.fence cimport fence, unfence
from loader.kernel cimport (
    BODY, DELETE, INSERT, UPDATE, CompiledPlan, Source, Text, lend, operation_of, u8,
)

from loader import fold as reference
from loader import rows

cdef extern from "Python.h":
    Py_ssize_t list_size "PyList_GET_SIZE"(PyObject *found) nogil

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* Eight bytes at a time through a multiplication; the seed differs between processes. */
    static inline uint64_t fold_mix(uint64_t hash) {
        hash ^= hash >> 32;
        hash *= 0xd6e8feb86659fd93ULL;
        hash ^= hash >> 29;
        hash *= 0x9fb21c651e98df25ULL;
        return hash ^ (hash >> 32);
    }
    static inline uint64_t fold_hash(const unsigned char *data, size_t size, uint64_t seed) {
        uint64_t hash = seed ^ (size * 0x9e3779b97f4a7c15ULL), word;
        while (size >= 8) {
            memcpy(&word, data, 8);
            hash = fold_mix(hash ^ word);
            data += 8;
            size -= 8;
        }
        word = 0;
        memcpy(&word, data, size);
        return fold_mix(hash ^ word);
    }
    """
    uint64_t hash_of "fold_hash"(const u8 *data, size_t size, uint64_t seed) nogil

cdef uint64_t SEED = <uint64_t>(hash("a seed that each process has for itself") & (2**63 - 1))
cdef Py_ssize_t BLOCK = reference.BLOCK_BYTES
cdef Py_ssize_t ENTRY = reference.ENTRY_BYTES
cdef Py_ssize_t FAULT = reference.FAULT_BYTES
cdef int FRESH = reference.FRESH
cdef int CHANGED = reference.CHANGED
cdef int GONE = reference.GONE
cdef Py_ssize_t MOST = 0x7FFFFF00  # of keys, and of items: their numbers are 32 bits wide
cdef object State = reference.State


cdef struct Arena:
    u8 *data
    Py_ssize_t used
    Py_ssize_t room


cdef struct Entry:  # a key
    uint64_t hash
    Py_ssize_t start  # of its bytes, among the keys
    Py_ssize_t length
    int32_t item  # its last one
    bint fresh


cdef struct Item:  # a state of a key
    Py_ssize_t start  # of its line, among the lines
    Py_ssize_t length  # with the newline; 0: deleted
    int32_t entry
    int32_t stamp


cdef int grow(void **data, Py_ssize_t *room, Py_ssize_t wanted, Py_ssize_t width) except -1 nogil:
    """Make room for `wanted` things of `width` bytes."""
    cdef Py_ssize_t larger
    cdef void *moved
    if wanted <= room[0]:
        return 0
    larger = wanted + wanted // 2 + 64
    moved = realloc(data[0], <size_t>(larger * width))
    if moved == NULL:
        with gil:
            raise MemoryError
    data[0] = moved
    room[0] = larger
    return 0


cdef dict plans = {}
cdef Py_ssize_t held = 0  # their columns
cdef Py_ssize_t KEPT_COLUMNS = rows.KEPT_COLUMNS


cdef CompiledPlan compiled(plan):
    """A plan's compiled form, which keeps the plan, and so its id."""
    global held
    cdef CompiledPlan made
    found = plans.get(id(plan))
    if found is not None:
        return found
    made = CompiledPlan(plan)
    held += made.width
    if held > KEPT_COLUMNS:
        plans.clear()
        held = made.width
    plans[id(plan)] = made
    return made


@cython.final
cdef class KernelFold:
    """See `loader.fold.Fold`."""

    cdef readonly object plan
    cdef readonly list unwritable
    cdef readonly dict faults
    cdef CompiledPlan _compiled
    cdef Text _old
    cdef Text _new
    cdef Arena _keys
    cdef Arena _lines
    cdef Entry *_entries
    cdef Py_ssize_t _entry_count
    cdef Py_ssize_t _entry_room
    cdef Item *_items
    cdef Py_ssize_t _item_count
    cdef Py_ssize_t _item_room
    cdef uint32_t *_slots  # of the hash table: an entry's number and one, 0 where free
    cdef Py_ssize_t _slot_count  # a power of two
    cdef Py_ssize_t _beside  # bytes that Python objects take, roughly
    cdef bint _faulty  # is there anything in `faults`?
    cdef list _stamps
    cdef const char *_stamp  # the last of them
    cdef Py_ssize_t _stamp_length
    cdef int32_t _stamp_number
    cdef Py_ssize_t[3] _changes

    def __cinit__(self, plan):
        self.plan = plan
        self.unwritable = []
        self.faults = {}
        self._stamps = []
        self._compiled = compiled(plan)
        if not plan.key:
            raise ValueError("a table without a key is not folded by key")
        lend(&self._old, &self._old, self._compiled.width)
        lend(&self._new, &self._new, self._compiled.width)
        if self._old.spans == NULL or self._new.spans == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._old.data)
        free(self._old.spans)
        free(self._new.data)
        free(self._new.spans)
        free(self._keys.data)
        free(self._lines.data)
        free(self._entries)
        free(self._items)
        free(self._slots)

    @property
    def changes(self):
        """Row changes taken in: inserts, updates, deletes."""
        return [self._changes[0], self._changes[1], self._changes[2]]

    @property
    def held_bytes(self):
        """Memory held, roughly."""
        return self._lines.used + self._keys.used + self._entry_count * ENTRY + self._beside

    @property
    def size(self):
        """Rows to write or delete."""
        return self._entry_count

    def take(self, events, bytes source_ts not None):
        """Fold events in; the row changes they held."""
        cdef tuple held = tuple(events)
        cdef Py_ssize_t before = self._taken()
        cdef Py_ssize_t count = len(held)
        cdef Py_ssize_t index
        cdef Source *sources = <Source *>calloc(count + 1, sizeof(Source))
        cdef list faults = []
        if sources == NULL:
            raise MemoryError
        try:
            self._begin(source_ts)
            for index in range(count):
                prepare(&sources[index], held[index])
            with nogil:
                for index in range(count):
                    self._event(&sources[index], <PyObject *>faults)
        except (IndexError, struct.error) as error:
            raise rows.malformed(self.plan.table) from error
        finally:
            for index in range(count):
                unfence(sources[index].data)
            free(sources)
        return self._taken() - before

    cdef Py_ssize_t _taken(self):
        return self._changes[0] + self._changes[1] + self._changes[2]

    cdef int _begin(self, bytes source_ts) except -1:
        cdef Py_ssize_t count = len(self._stamps)
        if not count or self._stamps[count - 1] != source_ts:
            self._stamps.append(source_ts)
            self._stamp = PyBytes_AS_STRING(source_ts)
            self._stamp_length = PyBytes_GET_SIZE(source_ts)
            self._stamp_number = <int32_t>count
        return 0

    cdef int _event(self, Source *source, PyObject *faults) except -1 nogil:
        """Fold one event in."""
        cdef Py_ssize_t at
        cdef int operation = -1
        source.faults = faults
        if source.size >= 5:
            operation = operation_of(source.data[4])
        if operation < 0 or self._compiled.foreign or source.size < BODY:
            with gil:
                return self._by_python(source)
        at = self._compiled.body(source, operation)
        if at > source.size:
            return cut_short()
        while at < source.size:
            if operation != INSERT:
                at = self._compiled.key_only(source, at, &self._old)
                self._forget_faults(faults)
                if operation == DELETE:
                    self._deleted()
                    continue
                if at == source.size:
                    return cut_short()
            at = self._compiled.whole(source, at, &self._new)
            if operation == UPDATE and not self._compiled.same_key(&self._old, &self._new):
                self._deleted()
                self._written(INSERT, faults)
            else:
                self._written(operation, faults)
            self._forget_faults(faults)
        return 0

    cdef int _forget_faults(self, PyObject *faults) except -1 nogil:
        if list_size(faults):
            with gil:
                (<list>faults).clear()
        return 0

    cdef int _deleted(self) except -1 nogil:
        """The key in `_old` is gone."""
        cdef int32_t entry
        self._changes[<int>DELETE] += 1
        if not self._compiled.has_key(&self._old):
            return 0
        entry = self._entry(&self._old, False)
        self._append(entry, NULL, 0)
        if self._faulty:
            with gil:
                self._note(entry, ())
        return 0

    cdef int _written(self, int operation, PyObject *faults) except -1 nogil:
        """The row in `_new` is there."""
        cdef int32_t entry
        self._changes[operation] += 1
        if not self._compiled.has_key(&self._new):
            with gil:
                self._weigh(<list>faults)
                self.unwritable.extend(<list>faults)
            return 0
        entry = self._entry(&self._new, operation == INSERT)
        self._append(entry, self._new.data, self._new.used)
        if self._faulty or list_size(faults):
            with gil:
                self._note(entry, tuple(<list>faults))
        return 0

    cdef int _by_python(self, Source *source) except -1:
        """An event that is not as the kernel wants it: let Python decode it, or refuse it."""
        cdef bytes key
        cdef bytes row
        cdef int32_t entry
        for operation, key, row, faults in rows.PythonDecoder().decode(
            <object>source.event, self.plan
        ):
            self._changes[<int>operation] += 1
            if key is None:
                self._weigh(faults)
                self.unwritable.extend(faults)
                continue
            grow(<void **>&self._keys.data, &self._keys.room, self._keys.used + len(key) + 1, 1)
            memcpy(self._keys.data + self._keys.used, PyBytes_AS_STRING(key), len(key))
            entry = self._find(len(key), operation == INSERT)
            if row is None:
                self._append(entry, NULL, 0)
            else:
                self._append(entry, <const u8 *>PyBytes_AS_STRING(row), len(row))
            self._note(entry, faults)
        return 0

    cdef int _note(self, int32_t entry, faults) except -1:
        """These are the faults of a key's row now."""
        cdef bytes key = self._key(entry)
        if faults:
            self._weigh(faults)
            self.faults[key] = faults
        else:
            self.faults.pop(key, None)
        self._faulty = bool(self.faults)
        return 0

    cdef int _weigh(self, faults) except -1:
        for fault in faults:
            self._beside += FAULT + len(fault.original)
        return 0

    cdef int32_t _entry(self, Text *text, bint fresh) except -1 nogil:
        """The number of the key in `text`."""
        cdef Py_ssize_t length = self._compiled.key_size(text)
        grow(<void **>&self._keys.data, &self._keys.room, self._keys.used + length + 1, 1)
        self._compiled.put_key(text, self._keys.data + self._keys.used)
        return self._find(length, fresh)

    cdef int32_t _find(self, Py_ssize_t length, bint fresh) except -1 nogil:
        """The number of the key whose bytes stand behind all others, where there is room."""
        cdef u8 *key = self._keys.data + self._keys.used
        cdef uint64_t hash = hash_of(key, length, SEED)
        cdef Py_ssize_t slot
        cdef Entry *entry
        if 2 * (self._entry_count + 1) > self._slot_count:
            self._widen()
        slot = <Py_ssize_t>(hash & <uint64_t>(self._slot_count - 1))
        while self._slots[slot]:
            entry = &self._entries[self._slots[slot] - 1]
            if entry.hash == hash and entry.length == length:
                if memcmp(self._keys.data + entry.start, key, length) == 0:
                    return <int32_t>(self._slots[slot] - 1)
            slot = (slot + 1) & (self._slot_count - 1)
        grow(
            <void **>&self._entries, &self._entry_room, self._entry_count + 1, sizeof(Entry)
        )
        entry = &self._entries[self._entry_count]
        entry.hash, entry.start, entry.length = hash, self._keys.used, length
        entry.fresh = fresh
        key[length] = 10
        self._keys.used += length + 1
        self._entry_count += 1
        self._slots[slot] = <uint32_t>self._entry_count
        return <int32_t>(self._entry_count - 1)

    cdef int _widen(self) except -1 nogil:
        """Twice as many slots."""
        cdef Py_ssize_t count = self._slot_count * 2 if self._slot_count else 16
        cdef uint32_t *slots = <uint32_t *>calloc(count, sizeof(uint32_t))
        cdef Py_ssize_t number
        cdef Py_ssize_t slot
        if slots == NULL or count > MOST:
            free(slots)
            with gil:
                raise MemoryError
        for number in range(self._entry_count):
            slot = <Py_ssize_t>(self._entries[number].hash & <uint64_t>(count - 1))
            while slots[slot]:
                slot = (slot + 1) & (count - 1)
            slots[slot] = <uint32_t>(number + 1)
        free(self._slots)
        self._slots = slots
        self._slot_count = count
        return 0

    cdef int _append(self, int32_t entry, const u8 *row, Py_ssize_t length) except -1 nogil:
        """A key's new last state; without a row it is deleted."""
        cdef Item *item
        cdef u8 *to
        cdef Py_ssize_t whole = length + self._stamp_length + 2 if row != NULL else 0
        if self._item_count >= MOST:
            with gil:
                raise MemoryError
        grow(<void **>&self._items, &self._item_room, self._item_count + 1, sizeof(Item))
        item = &self._items[self._item_count]
        item.start, item.length, item.entry = self._lines.used, whole, entry
        if row != NULL:
            grow(<void **>&self._lines.data, &self._lines.room, self._lines.used + whole, 1)
            to = self._lines.data + self._lines.used
            memcpy(to, row, length)
            to[length] = 9
            memcpy(to + length + 1, self._stamp, self._stamp_length)
            to[whole - 1] = 10
            self._lines.used += whole
        item.stamp = self._stamp_number
        self._entries[entry].item = <int32_t>self._item_count
        self._item_count += 1
        return 0

    cdef int _kind(self, Py_ssize_t number) noexcept nogil:
        """What is to be done with an item; -1 where a later one took its place."""
        cdef Item *item = &self._items[number]
        cdef Entry *entry = &self._entries[item.entry]
        if entry.item != number:
            return -1
        if not item.length:
            return GONE
        return FRESH if entry.fresh else CHANGED

    def count(self, int kind):
        """Lines of a kind."""
        cdef Py_ssize_t number
        cdef Py_ssize_t found = 0
        for number in range(self._item_count):
            found += self._kind(number) == kind
        return found

    def lines(self, int kind):
        """Blocks of lines."""
        cdef Py_ssize_t number = 0
        cdef Py_ssize_t behind
        cdef Py_ssize_t size
        while number < self._item_count:
            size = self._measure(kind, number, &behind)
            if size:
                yield self._block(kind, number, behind, size)
            number = behind

    cdef Py_ssize_t _measure(self, int kind, Py_ssize_t number, Py_ssize_t *behind) noexcept:
        """Bytes of the lines from item `number` to `behind`, which is where a block is full."""
        cdef Py_ssize_t size = 0
        while number < self._item_count and size < BLOCK:
            if self._kind(number) == kind:
                size += self._length(kind, number)
            number += 1
        behind[0] = number
        return size

    cdef Py_ssize_t _length(self, int kind, Py_ssize_t number) noexcept:
        if kind == GONE:
            return self._entries[self._items[number].entry].length + 1
        return self._items[number].length

    cdef bytes _block(self, int kind, Py_ssize_t number, Py_ssize_t behind, Py_ssize_t size):
        cdef bytes made = PyBytes_FromStringAndSize(NULL, size)
        cdef char *to = PyBytes_AS_STRING(made)
        cdef Py_ssize_t length
        while number < behind:
            if self._kind(number) == kind:
                length = self._length(kind, number)
                if kind == GONE:
                    memcpy(
                        to, self._keys.data + self._entries[self._items[number].entry].start, length
                    )
                else:
                    memcpy(to, self._lines.data + self._items[number].start, length)
                to += length
            number += 1
        return made

    cdef bytes _key(self, int32_t entry):
        return PyBytes_FromStringAndSize(
            <char *>self._keys.data + self._entries[entry].start, self._entries[entry].length
        )

    def states(self):
        """Every key's last state."""
        cdef Py_ssize_t number
        cdef Item *item
        for number in range(self._item_count):
            if self._kind(number) < 0:
                continue
            item = &self._items[number]
            stamp = self._stamps[item.stamp]
            row = None
            if item.length:
                row = PyBytes_FromStringAndSize(
                    <char *>self._lines.data + item.start, item.length - len(stamp) - 2
                )
            yield State(self._key(item.entry), row, stamp)


cdef int prepare(Source *source, bytes event) except -1:
    """`event` must outlive `source`."""
    source.event = <PyObject *>event
    source.size = PyBytes_GET_SIZE(event)
    source.data = fence(PyBytes_AS_STRING(event), source.size)
    if source.data == NULL:
        raise MemoryError
    return 0


cdef int cut_short() except -1 nogil:
    """The event ends before what its table map promises."""
    with gil:
        raise IndexError
