// json.go reads JSON the way that security needs it: what two readers could
// understand differently is refused.

package jose

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
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
	w, err := newWalker(data)
	if err != nil {
		return err
	}
	return w.value(maxDepth)
}

// Members reads the members of a JSON object in UTF-8, by their exact names
// (decoding into a struct would ignore case). It refuses duplicates of them, but
// leaves what is inside their values to whoever reads those. Its errors hold no
// byte of the data.
func Members(data []byte) (map[string]json.RawMessage, error) {
	w, err := newWalker(data)
	if err != nil {
		return nil, err
	}
	if w.peek() != '{' {
		return nil, errNotObject
	}
	members := map[string]json.RawMessage{}
	w.visit = func(name, value []byte) { members[string(name)] = value }
	if err := w.object(1); err != nil {
		return nil, err
	}
	return members, nil
}

// text reads a member that has to be a string. present is false when it is not
// there; ok is false when it is there and something else.
func text(members map[string]json.RawMessage, name string) (value string, present, ok bool) {
	raw, present := members[name]
	if !present {
		return "", false, true
	}
	if raw[0] != '"' {
		return "", true, false
	}
	err := json.Unmarshal(raw, &value)
	return value, true, err == nil
}

// walker walks through a text that is known to be JSON, and judges what the
// grammar does not.
type walker struct {
	data []byte
	pos  int
	// visit, where set, gets the members of the outermost object, and what is
	// inside them is left alone.
	visit func(name, value []byte)
}

func newWalker(data []byte) (*walker, error) {
	if !utf8.Valid(data) {
		return nil, errNotUTF8
	}
	if !json.Valid(data) {
		return nil, errNotJSON
	}
	return &walker{data: data}, nil
}

// value walks through any value.
func (w *walker) value(depth int) error {
	switch w.peek() {
	case '{':
		return w.object(depth)
	case '[':
		return w.array(depth)
	case '"':
		return checkSurrogates(w.quoted())
	}
	w.scalar()
	return nil
}

// object walks through an object.
func (w *walker) object(depth int) error {
	if depth <= 0 {
		return errTooDeep
	}
	var seen names
	w.pos++
	for w.peek() != '}' {
		name, err := unescape(w.quoted())
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return errDuplicate
		}
		w.peek()
		w.pos++ // the colon
		if err := w.member(name, depth-1); err != nil {
			return err
		}
		w.comma()
	}
	w.pos++
	return nil
}

// member walks through the value of a member, or hands it over.
func (w *walker) member(name []byte, depth int) error {
	if w.visit == nil {
		return w.value(depth)
	}
	w.peek()
	start := w.pos
	w.skip()
	w.visit(name, w.data[start:w.pos:w.pos])
	return nil
}

// array walks through an array.
func (w *walker) array(depth int) error {
	if depth <= 0 {
		return errTooDeep
	}
	w.pos++
	for w.peek() != ']' {
		if err := w.value(depth - 1); err != nil {
			return err
		}
		w.comma()
	}
	w.pos++
	return nil
}

// skip goes around a value.
func (w *walker) skip() {
	for depth := 0; ; {
		switch w.peek() {
		case '{', '[':
			depth++
			w.pos++
		case '}', ']':
			depth--
			w.pos++
		case ',', ':': // only within the value
			w.pos++
		case '"':
			w.quoted()
		default:
			w.scalar()
		}
		if depth == 0 {
			return
		}
	}
}

// peek skips white space, and looks at the byte after it.
func (w *walker) peek() byte {
	for {
		switch b := w.data[w.pos]; b {
		case ' ', '\t', '\r', '\n':
			w.pos++
		default:
			return b
		}
	}
}

// comma moves past a comma, if there is one.
func (w *walker) comma() {
	if w.peek() == ',' {
		w.pos++
	}
}

// scalar moves past a number, true, false or null.
func (w *walker) scalar() {
	w.pos = len(w.data) - len(bytes.TrimLeft(w.data[w.pos:], "+-.0123456789aeflnrstuE"))
}

// quoted moves past a string, and is what stands between the quotes.
func (w *walker) quoted() []byte {
	w.pos++
	start := w.pos
	for w.data[w.pos] != '"' {
		if w.data[w.pos] == '\\' {
			w.pos++
		}
		w.pos++
	}
	w.pos++
	return w.data[start : w.pos-1]
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

// names are those of an object's members. Few of them, the usual case, need no
// memory of their own.
type names struct {
	few  [16][]byte
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
