// json.go reads JSON the way that security needs it: what two readers could
// understand differently is refused.

package jose

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"iter"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Problems of a JSON text. They hold no byte of it.
var (
	errNotUTF8   = errors.New("the text is not UTF-8")
	errNotJSON   = errors.New("the text is not exactly one JSON value")
	errNotObject = errors.New("the text is not a JSON object")
	errDuplicate = errors.New("an object has two members of the same name")
	errTooDeep   = errors.New("the text is nested too deeply")
	errSurrogate = errors.New("a string has half of a surrogate pair")
)

// CheckJSON reports whether data is exactly one JSON value (RFC 8259) in UTF-8
// with nothing but white space around it, without duplicate members in any
// object (RFC 7515 section 4, RFC 7517 section 4), without halves of surrogate
// pairs (which readers replace, each in its own way: RFC 8259 section 8.2), and
// with at most maxDepth nested objects and arrays. Its errors hold no byte of
// the data.
func CheckJSON(data []byte, maxDepth int) error {
	w := walker{data: data}
	return w.all(func() error { return w.value(maxDepth) })
}

// Members reads the members of a JSON object in UTF-8, by their exact names
// (decoding into a struct would ignore case). It refuses duplicates of them, but
// leaves what is inside their values, where it is JSON at all, to whoever reads
// those. Its errors hold no byte of the data.
func Members(data []byte) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	w := walker{data: data, loose: true}
	w.visit = func(name, value []byte) { members[string(name)] = value }
	if err := w.all(func() error { return w.outermost(maxLooseDepth) }); err != nil {
		return nil, err
	}
	return members, nil
}

// maxLooseDepth is the nesting that encoding/json reads at most, too.
const maxLooseDepth = 10_000

// Object is a JSON object that passes CheckJSON. It shares the memory of the text
// that it was read from.
type Object struct{ members []member }

type member struct{ name, value []byte }

// ReadObject reads an object that passes CheckJSON, in one go with that check:
// tokens are read with it, for each request.
func ReadObject(data []byte, maxDepth int) (Object, error) {
	o := Object{members: make([]member, 0, min(usualMembers, bytes.Count(data, []byte{','})+1))}
	w := walker{data: data}
	w.visit = func(name, value []byte) { o.members = append(o.members, member{name, value}) }
	if err := w.all(func() error { return w.outermost(maxDepth) }); err != nil {
		return Object{}, err
	}
	return o, nil
}

// Member is the value of a member, by its exact name (decoding into a struct
// would ignore case); nil when there is none.
func (o Object) Member(name string) json.RawMessage {
	for _, m := range o.members {
		if string(m.name) == name {
			return m.value
		}
	}
	return nil
}

// All are the members.
func (o Object) All() iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		for _, m := range o.members {
			if !yield(string(m.name), m.value) {
				return
			}
		}
	}
}

// Text reads a JSON string out of a text that passes CheckJSON; ok is false for
// any other value.
func Text(raw json.RawMessage) (value string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), true
	}
	err := json.Unmarshal(raw, &value)
	return value, err == nil
}

// Texts reads an array of JSON strings out of a text that passes CheckJSON; ok is
// false for any other value.
func Texts(raw json.RawMessage) (values []string, ok bool) {
	if len(raw) < 2 || raw[0] != '[' {
		return nil, false
	}
	values, w := []string{}, walker{data: raw, pos: 1}
	for w.peek() == '"' {
		start := w.pos
		if _, err := w.quoted(); err != nil {
			return nil, false
		}
		value, ok := Text(raw[start:w.pos])
		if !ok {
			return nil, false
		}
		values = append(values, value)
		if w.peek() == ',' {
			w.pos++
		}
	}
	return values, w.peek() == ']'
}

// text reads a member that has to be a string where it is there; ok is false when
// it is something else.
func text(members map[string]json.RawMessage, name string) (value string, ok bool) {
	raw, present := members[name]
	if !present {
		return "", true
	}
	return Text(raw)
}

// text is the same for an Object, and says whether it is there.
func (o Object) text(name string) (value string, present, ok bool) {
	raw := o.Member(name)
	if raw == nil {
		return "", false, true
	}
	value, ok = Text(raw)
	return value, true, ok
}

// walker walks through a JSON text once, and judges its grammar together with what
// the grammar leaves open. A fuzz test compares it with encoding/json.
type walker struct {
	data []byte
	pos  int
	// visit, where set, gets the members of the outermost object.
	visit func(name, value []byte)
	// loose: what is inside those members only has to be JSON.
	loose bool
}

// all walks through the whole text.
func (w *walker) all(walk func() error) error {
	if !utf8.Valid(w.data) {
		return errNotUTF8
	}
	if err := walk(); err != nil {
		return err
	}
	if w.peek(); w.pos < len(w.data) {
		return errNotJSON
	}
	return nil
}

// outermost walks through the text, which has to be an object.
func (w *walker) outermost(depth int) error {
	if w.peek() != '{' {
		return errNotObject
	}
	return w.object(depth)
}

// value walks through any value.
func (w *walker) value(depth int) error {
	switch w.peek() {
	case '{':
		return w.object(depth)
	case '[':
		return w.array(depth)
	case '"':
		raw, err := w.quoted()
		if err != nil || w.judgesNothing() {
			return err
		}
		return checkSurrogates(raw)
	case 't':
		return w.literal("true")
	case 'f':
		return w.literal("false")
	case 'n':
		return w.literal("null")
	}
	return w.number()
}

// judgesNothing: the walk is inside a member that only has to be JSON.
func (w *walker) judgesNothing() bool { return w.loose && w.visit == nil }

// object walks through an object.
func (w *walker) object(depth int) error {
	if depth <= 0 {
		return errTooDeep
	}
	var seen names
	w.pos++
	for first := true; ; first = false {
		if more, err := w.more('}', first); err != nil || !more {
			return err
		}
		if w.peek() != '"' {
			return errNotJSON
		}
		raw, err := w.quoted()
		if err != nil {
			return err
		}
		if w.peek() != ':' {
			return errNotJSON
		}
		w.pos++
		if w.judgesNothing() {
			err = w.value(depth - 1)
		} else {
			err = w.member(&seen, raw, depth-1)
		}
		if err != nil {
			return err
		}
	}
}

// member walks through the value of a member, and hands it over.
func (w *walker) member(seen *names, raw []byte, depth int) error {
	name, err := unescape(raw)
	if err != nil {
		return err
	}
	if !seen.add(name) {
		return errDuplicate
	}
	visit := w.visit
	w.visit = nil
	w.peek()
	start := w.pos
	if err := w.value(depth); err != nil {
		return err
	}
	if w.visit = visit; visit != nil {
		visit(name, w.data[start:w.pos:w.pos])
	}
	return nil
}

// array walks through an array.
func (w *walker) array(depth int) error {
	if depth <= 0 {
		return errTooDeep
	}
	w.pos++
	for first := true; ; first = false {
		if more, err := w.more(']', first); err != nil || !more {
			return err
		}
		if err := w.value(depth - 1); err != nil {
			return err
		}
	}
}

// more moves to the next element of an object or array, past the comma before it,
// or past the end.
func (w *walker) more(end byte, first bool) (bool, error) {
	switch b := w.peek(); {
	case b == end:
		w.pos++
		return false, nil
	case first:
		return true, nil
	case b != ',':
		return false, errNotJSON
	}
	w.pos++
	if w.peek() == end { // a comma with nothing after it
		return false, errNotJSON
	}
	return true, nil
}

// peek skips white space, and looks at the byte after it: 0 at the end, which no
// JSON text has outside of a string.
func (w *walker) peek() byte {
	for ; w.pos < len(w.data); w.pos++ {
		switch b := w.data[w.pos]; b {
		case ' ', '\t', '\r', '\n':
		default:
			return b
		}
	}
	return 0
}

func (w *walker) literal(word string) error {
	if !bytes.HasPrefix(w.data[w.pos:], []byte(word)) {
		return errNotJSON
	}
	w.pos += len(word)
	return nil
}

// number moves past a number (RFC 8259 section 6).
func (w *walker) number() error {
	w.skip("-")
	if w.skip("0") == 0 && w.digits() == 0 {
		return errNotJSON
	}
	if w.skip(".") == 1 && w.digits() == 0 {
		return errNotJSON
	}
	if w.skip("eE") == 1 {
		w.skip("+-")
		if w.digits() == 0 {
			return errNotJSON
		}
	}
	return nil
}

// skip moves past a byte if it is one of these, and says by how much.
func (w *walker) skip(these string) int {
	if w.pos < len(w.data) && strings.IndexByte(these, w.data[w.pos]) >= 0 {
		w.pos++
		return 1
	}
	return 0
}

func (w *walker) digits() int {
	start := w.pos
	for w.pos < len(w.data) && '0' <= w.data[w.pos] && w.data[w.pos] <= '9' {
		w.pos++
	}
	return w.pos - start
}

// quoted moves past a string, and is what stands between the quotes.
func (w *walker) quoted() ([]byte, error) {
	w.pos++
	start := w.pos
	for {
		if w.pos += plain(w.data[w.pos:]); w.pos == len(w.data) {
			return nil, errNotJSON
		}
		switch b := w.data[w.pos]; {
		case b == '"':
			w.pos++
			return w.data[start : w.pos-1], nil
		case b < ' ':
			return nil, errNotJSON
		case b == '\\':
			if err := w.escape(); err != nil {
				return nil, err
			}
		}
	}
}

// plain is how many bytes at the start of text neither end nor escape a string,
// nor are control characters. Tokens are mostly strings, so it looks at eight bytes
// at a time. Subtraction makes the highest bit of each byte that is less than the
// other; a borrow reaches the bytes above such a one alone, so the lowest is right.
func plain(text []byte) int {
	const ones, highest = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(text); n += 8 {
		v := binary.LittleEndian.Uint64(text[n:])
		quote, backslash := v^(ones*'"'), v^(ones*'\\')
		found := ((v - ones*' ') &^ v) | ((quote - ones) &^ quote) | ((backslash - ones) &^ backslash)
		if found &= highest; found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for ; n < len(text); n++ {
		if b := text[n]; b < ' ' || b == '"' || b == '\\' {
			break
		}
	}
	return n
}

// escape moves past a backslash and what belongs to it (RFC 8259 section 7).
func (w *walker) escape() error {
	w.pos++
	if w.skip(`"\/bfnrt`) == 1 {
		return nil
	}
	if w.skip("u") == 0 {
		return errNotJSON
	}
	for range 4 {
		if w.skip("0123456789abcdefABCDEF") == 0 {
			return errNotJSON
		}
	}
	return nil
}

// unescape is the value of a string, given what stands between its quotes.
func unescape(raw []byte) ([]byte, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw, nil
	}
	if err := checkSurrogates(raw); err != nil {
		return nil, err
	}
	var value string
	if err := json.Unmarshal(slices.Concat([]byte{'"'}, raw, []byte{'"'}), &value); err != nil {
		return nil, errNotJSON
	}
	return []byte(value), nil
}

// checkSurrogates refuses \u escapes of half a surrogate pair.
func checkSurrogates(raw []byte) error {
	if bytes.IndexByte(raw, '\\') < 0 {
		return nil
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		first := codeUnit(raw[i:])
		i++
		if !utf16.IsSurrogate(first) {
			continue
		}
		i += 5
		if utf16.DecodeRune(first, codeUnit(raw[i:])) == utf8.RuneError {
			return errSurrogate
		}
		i += 5
	}
	return nil
}

// codeUnit is the UTF-16 code unit of a \u escape; 0 where there is none.
func codeUnit(raw []byte) rune {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0
	}
	unit, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(unit)
}

// usualMembers is how many members an object has, mostly, at most.
const usualMembers = 16

// names are those of an object's members. Few of them, the usual case, need no
// memory of their own.
type names struct {
	few  [usualMembers][]byte
	n    int
	more map[string]struct{}
}

// add reports whether the name is new.
func (s *names) add(name []byte) bool {
	for _, known := range s.few[:s.n] {
		if bytes.Equal(known, name) {
			return false
		}
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	if _, known := s.more[string(name)]; known {
		return false
	}
	if s.more == nil {
		s.more = map[string]struct{}{}
	}
	s.more[string(name)] = struct{}{}
	return true
}
