// json_test.go: which texts are JSON that everybody reads the same way.
package jose_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jwks-trust/jwks-trust-manager/internal/jose"
)

func TestCheckJSON(t *testing.T) {
	many := make([]string, 0, 100)
	for i := range 100 {
		many = append(many, `"`+strings.Repeat("a", i)+`":1`)
	}
	for text, want := range map[string]bool{
		`{}`: true, `[]`: true, `"a"`: true, `0`: true, `-1.5E+3`: true, `true`: true, `false`: true, `null`: true,
		" \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \n": true,
		`{"a":{"a":{"a":1}}}`:                           true,
		`[{"a":1},{"a":1}]`:                             true,
		`{"a":"a","A":1,"":2," ":3}`:                    true,
		`{"a":"\"}{][,:\\"}`:                            true,
		`{"\"a":1,"a\"":2}`:                             true,
		`"\ud83d\ude00 \u0041 \n"`:                      true,
		`"\uD83D\uDE00\ud83d\ude00"`:                    true,
		`"\\ud800"`:                                     true,
		`"\\\\ud800"`:                                   true,
		"\"\u00fc\U0001f600\ufffd\"":                    true,
		"{" + strings.Join(many, ",") + "}":             true,

		``: false, ` `: false, `{`: false, `}`: false, `[}`: false, `{]`: false, `"`: false, `"\"`: false,
		`{"a":1,}`: false, `[1,]`: false, `[,1]`: false, `{,}`: false, `{"a"}`: false, `{"a":}`: false, `{a:1}`: false, `{1:1}`: false,
		`{} {}`: false, `{}x`: false, `1 2`: false, `nul`: false, `nulll`: false, `tru`: false, `01`: false, `1.`: false, `.5`: false, `+1`: false, `NaN`: false, `1e`: false,
		"\"\n\"": false, "\"\x00\"": false, "{}\x00": false, `"\x41"`: false, `"\u12"`: false,
		"\"\xff\"": false, "\"\xed\xa0\x80\"": false, "\"\xf4\x90\x80\x80\"": false, "\xef\xbb\xbf{}": false,
		`{"a":1,"a":1}`:                 false,
		`{"a":1,"\u0061":1}`:            false,
		`{"\n":1,"\u000a":1}`:           false,
		`{"\ud83d\ude00":1,"😀":1}`:      false,
		`{"":1,"":1}`:                   false,
		`{"x":[0,{"a":1,"b":2,"a":3}]}`: false,
		"{" + strings.Join(many, ",") + "," + many[50] + "}": false,
		"{" + strings.Join(many, ",") + "," + many[3] + "}":  false,
		`"\ud800"`: false, `"\udc00"`: false, `"\ud800\ud800"`: false, `"\ud800\u0041"`: false, `"\ud800\n"`: false, `"\udc00\ud800"`: false, `"\ud800\\udc00"`: false,
		`{"\ud800":1}`: false, `["\uDFFF"]`: false,
	} {
		if err := jose.CheckJSON([]byte(text), 8); (err == nil) != want {
			t.Errorf("%.60q: got %v", text, err)
		}
	}
}

func TestCheckJSONBoundsNesting(t *testing.T) {
	object := func(depth int) string { return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth) }
	for _, bound := range []int{0, 1, 2, 32} {
		for _, text := range []func(int) string{nested, object} {
			if bound > 0 {
				if err := jose.CheckJSON([]byte(text(bound)), bound); err != nil {
					t.Errorf("%d of %d: %v", bound, bound, err)
				}
			}
			for _, depth := range []int{bound + 1, bound + 1000, bound + 100_000} {
				if err := jose.CheckJSON([]byte(text(depth)), bound); err == nil {
					t.Errorf("%d of %d: no error", depth, bound)
				}
			}
		}
	}
	if err := jose.CheckJSON([]byte(`"flat"`), 0); err != nil {
		t.Errorf("no nesting at all: %v", err)
	}
	if err := jose.CheckJSON([]byte(`[]`), -1); err == nil {
		t.Error("a negative bound lets everything pass")
	}
}

func TestMembers(t *testing.T) {
	members, err := jose.Members([]byte(` { "a" : [ {"x":1,"x":2}, "]}" ] , "b":"\"}" ,"c":-1.5e3,"\u0064":null,"E":{}, "f":true } `))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": `[ {"x":1,"x":2}, "]}" ]`, "b": `"\"}"`, "c": "-1.5e3", "d": "null", "E": "{}", "f": "true"}
	if len(members) != len(want) {
		t.Errorf("got %d members, want %d", len(members), len(want))
	}
	for name, value := range want {
		if string(members[name]) != value {
			t.Errorf("%s is %s, want %s", name, members[name], value)
		}
	}
	for _, text := range []string{``, `[]`, `null`, `"a"`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":1}x`, "{\"a\":\"\xff\"}", `{"\ud800":1}`} {
		if members, err := jose.Members([]byte(text)); err == nil {
			t.Errorf("%q: got %v", text, members)
		}
	}
}

// FuzzCheckJSON compares with a slow reader of tokens from encoding/json.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"x",{"b":null}]}`, `{"a":1,"\u0061":2}`, `"\ud83d\ude00"`, `[[[[[[]]]]]]`, ` {"":{},"x":-0.1e-5} `} {
		f.Add([]byte(seed))
	}
	const depth = 5
	f.Fuzz(func(t *testing.T, text []byte) {
		err := jose.CheckJSON(text, depth)
		slow := slowCheck(text, depth)
		if err == nil && !slow {
			t.Fatalf("accepted %q", text)
		}
		// The slow reader does not mind halves of surrogate pairs.
		if err != nil && slow && !bytes.Contains(text, []byte(`\u`)) {
			t.Fatalf("refused %q: %v", text, err)
		}
		compareMembers(t, text)
		compareObject(t, text, depth, err)
	})
}

// compareObject checks that an Object is what CheckJSON passes, and has the
// standard library's values.
func compareObject(t *testing.T, text []byte, depth int, checked error) {
	t.Helper()
	object, err := jose.ReadObject(text, depth)
	var want map[string]json.RawMessage
	isObject := json.Unmarshal(text, &want) == nil && want != nil
	if (err == nil) != (checked == nil && isObject) {
		t.Fatalf("%q: ReadObject says %v, CheckJSON %v", text, err, checked)
	}
	if err != nil {
		return
	}
	for name, value := range want {
		if !bytes.Equal(object.Member(name), value) {
			t.Fatalf("%q: %q is %q, want %q", text, name, object.Member(name), value)
		}
		compareTexts(t, value)
	}
}

// compareTexts checks Text and Texts against the standard library, which takes
// null for an empty string or no strings.
func compareTexts(t *testing.T, value json.RawMessage) {
	t.Helper()
	var one string
	isText := json.Unmarshal(value, &one) == nil && string(value) != "null"
	if got, ok := jose.Text(value); ok != isText || ok && got != one {
		t.Fatalf("%q: Text is %q, %t", value, got, ok)
	}
	var many []*string
	isTexts := json.Unmarshal(value, &many) == nil && many != nil && !slices.Contains(many, nil)
	got, ok := jose.Texts(value)
	if ok != isTexts || len(got) != len(many) && ok {
		t.Fatalf("%q: Texts is %q, %t", value, got, ok)
	}
	for i := range got {
		if got[i] != *many[i] {
			t.Fatalf("%q: Texts is %q", value, got)
		}
	}
}

func slowCheck(text []byte, depth int) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if !utf8.Valid(text) || !json.Valid(text) || !slowValue(d, depth) {
		return false
	}
	_, err := d.Token()
	return errors.Is(err, io.EOF)
}

func slowValue(d *json.Decoder, depth int) bool {
	token, err := d.Token()
	if err != nil {
		return false
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return true
	}
	if depth == 0 {
		return false
	}
	seen := map[any]bool{}
	for d.More() {
		if delim == '{' {
			name, err := d.Token()
			if err != nil || seen[name] {
				return false
			}
			seen[name] = true
		}
		if !slowValue(d, depth-1) {
			return false
		}
	}
	_, err = d.Token()
	return err == nil
}

// compareMembers checks Members against the standard library's maps.
func compareMembers(t *testing.T, text []byte) {
	t.Helper()
	members, err := jose.Members(text)
	if err != nil {
		return
	}
	var want map[string]json.RawMessage
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatalf("Members accepted %q: %v", text, err)
	}
	if len(members) != len(want) {
		t.Fatalf("%q: %d members, want %d", text, len(members), len(want))
	}
	for name, value := range want {
		if !bytes.Equal(members[name], value) {
			t.Fatalf("%q: %q is %q, want %q", text, name, members[name], value)
		}
	}
}
