// plan.go bounds parts of expressions that are no functions of their own to CEL: lists
// and maps that are written down, and regular expressions.

package policy

import (
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
)

// boundedPart is a part of an expression, or in its place one whose cost is what sizeOf says.
func boundedPart(part interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	switch part := part.(type) {
	case interpreter.InterpretableConstructor:
		if kind := part.Type(); (kind == types.ListType || kind == types.MapType) && !constant(part.InitVals()...) {
			return written{part}, nil
		}
	case interpreter.InterpretableCall:
		if search, ok := searches[part.Function()]; ok && len(part.Args()) >= 2 {
			return search.in(part)
		}
	}
	return part, nil
}

// constant reports whether parts are, so that the compiler makes one value of them.
func constant(parts ...interpreter.InterpretableV2) bool {
	for _, p := range parts {
		if _, is := p.(interpreter.InterpretableConst); !is {
			return false
		}
	}
	return true
}

// written is a list or a map that is written down. Its elements may be lists that are
// there already, many times, so that its cost is what a call's is.
type written struct {
	interpreter.InterpretableConstructor
}

// writtenFunction is how sizeOf knows it; writtenList and writtenMap are the least that
// they cost, as in CEL.
const (
	writtenFunction         = "@written"
	writtenList, writtenMap = 10, 30
)

// Function implements interpreter.InterpretableCall.
func (w written) Function() string { return writtenFunction }

// OverloadID implements interpreter.InterpretableCall.
func (w written) OverloadID() string { return writtenFunction }

// Args implements interpreter.InterpretableCall.
func (w written) Args() []interpreter.InterpretableV2 { return w.InitVals() }

// search is a function that looks for a pattern in a text. others are its arguments after
// the pattern.
type search func(re *regexp.Regexp, text string, others []ref.Val) ref.Val

var searches = map[string]search{
	"matches": func(re *regexp.Regexp, text string, _ []ref.Val) ref.Val { return types.Bool(re.MatchString(text)) },
	"find":    func(re *regexp.Regexp, text string, _ []ref.Val) ref.Val { return types.String(re.FindString(text)) },
	"findAll": func(re *regexp.Regexp, text string, others []ref.Val) ref.Val {
		most := types.Int(-1)
		if len(others) > 0 {
			n, isNumber := others[0].(types.Int)
			if !isNumber {
				return types.MaybeNoSuchOverloadErr(others[0])
			}
			most = n
		}
		return types.NewStringList(types.DefaultTypeAdapter, re.FindAllString(text, int(most)))
	},
}

// compiledPattern and otherPattern are how sizeOf knows calls of a search: those whose
// pattern is a constant, with its size in place of an overload, and those that have to
// compile it.
const compiledPattern, otherPattern = "@pattern", "@otherPattern"

// in is a call of a search that does not begin what would cost too much.
func (s search) in(call interpreter.InterpretableCall) (interpreter.InterpretableV2, error) {
	function, overload := otherPattern, call.OverloadID()
	var compiled *regexp.Regexp
	if constant(call.Args()[1]) {
		pattern, isText := call.Args()[1].Eval(interpreter.EmptyActivation()).(types.String)
		if !isText {
			return call, nil
		}
		var err error
		if compiled, err = regexp.Compile(string(pattern)); err != nil {
			return nil, err //nolint:wrapcheck // CEL says where
		}
		function, overload = compiledPattern, strconv.FormatUint(patternSize(string(pattern)), 10)
	}
	return interpreter.NewCall(call.ID(), function, overload, call.Args(), func(args ...ref.Val) ref.Val {
		text, isText := args[0].(types.String)
		pattern, isPattern := args[1].(types.String)
		switch {
		case !isText:
			return types.MaybeNoSuchOverloadErr(args[0])
		case !isPattern:
			return types.MaybeNoSuchOverloadErr(args[1])
		case searchCost(function, overload, args) > maxMade/10:
			return types.WrapErr(errTooExpensive)
		}
		re := compiled
		if re == nil {
			var err error
			if re, err = regexp.Compile(string(pattern)); err != nil {
				return types.WrapErr(err)
			}
		}
		return s(re, string(text), args[2:])
	}), nil
}

// searchCost is what CEL says that a search costs, but for the size that a pattern gets
// by its counts, as in a{1000}, and for its compilation.
func searchCost(function, overload string, args []ref.Val) uint64 {
	text, isText := args[0].(types.String)
	pattern, isPattern := args[1].(types.String)
	if !isText || !isPattern {
		return 0 // there is no such function, and the call says so
	}
	size, err := strconv.ParseUint(overload, 10, 64)
	if function == otherPattern || err != nil {
		size = patternSize(string(pattern))
	}
	cost := times(uint64(len(text)+10)/10, (size+3)/4)
	if function == otherPattern {
		cost += times(size, patternCost)
	}
	return cost
}

const (
	// patternCost is what it costs to compile a pattern, for each of its size.
	patternCost = 5
	// classSize is how much a class of Unicode counts, and foldSize a letter beyond ASCII,
	// or by number, where case does not matter: it may be the end of a class, and all in
	// that are looked at when it is compiled.
	classSize, foldSize = 100, 1000
	// maxPatternSize is how large all patterns of an expression may be together.
	maxPatternSize = 4000
)

var withoutCase = regexp.MustCompile(`\(\?[a-zA-Z-]*i`)

// patternSize is how large a pattern is when it is compiled, about. One that cannot be
// compiled has the size of its text.
func patternSize(pattern string) uint64 {
	size := len(pattern) + classSize*(strings.Count(pattern, `\p`)+strings.Count(pattern, `\P`))
	if withoutCase.MatchString(pattern) {
		size += foldSize * (strings.Count(pattern, `\x`) + beyondASCII(pattern))
	}
	least := uint64(size) //nolint:gosec // a length
	if !strings.Contains(pattern, "{") || least > maxMade/classSize {
		return least
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return least
	}
	return max(least, repeated(parsed))
}

func beyondASCII(s string) (n int) {
	for _, r := range s {
		if r > unicode.MaxASCII {
			n++
		}
	}
	return n
}

// repeated is how many parts a pattern has, with those that are repeated. A count is one
// itself, and repeated too.
func repeated(re *syntax.Regexp) (n uint64) {
	n = 1
	if re.Op == syntax.OpLiteral {
		n = uint64(len(re.Rune))
	}
	for _, sub := range re.Sub {
		n += repeated(sub)
	}
	if re.Op == syntax.OpRepeat {
		n = times(n, uint64(max(re.Min, re.Max, 1)))
	}
	return n
}
