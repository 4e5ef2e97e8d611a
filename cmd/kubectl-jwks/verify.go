// verify.go is `kubectl jwks verify`: why is this token refused? Each check in the
// verifier's order, made by the verifier's own code.

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
	"github.com/jwks-trust/jwks-trust-manager/internal/keyset"
	"github.com/jwks-trust/jwks-trust-manager/internal/snapshot"
	"github.com/jwks-trust/jwks-trust-manager/internal/verifier"
)

// maxToken is how much is read as a token. The verifier reads 16 KiB.
const maxToken = 64 << 10

type verifyOptions struct {
	c             *cli
	by            string
	jwks          string
	issuer        string
	audiences     []string
	showClaims    bool
	allNamespaces bool
	output        string
}

// judged is the answer.
type judged struct {
	// Outcome is accept, refuse or cannot_decide.
	Outcome string          `json:"outcome"`
	Reason  string          `json:"reason"`
	Detail  string          `json:"detail,omitempty"`
	Text    string          `json:"text"`
	Do      string          `json:"do,omitempty"`
	By      string          `json:"by"`
	Checks  []judgedCheck   `json:"checks"`
	Header  *judgedHeader   `json:"header,omitempty"`
	Claims  json.RawMessage `json:"claims,omitempty"`
}

// judgedHeader is what the header says of the key.
type judgedHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid,omitempty"`
}

type judgedCheck struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Reason string `json:"reason,omitempty"`
	// Demand is what is checked, with the values of this issuer.
	Demand string `json:"demand"`
}

// judge is who judges: an issuer object, or a file.
type judge struct {
	name   string
	issuer api.Issuer
	// keys are those that may verify tokens; nil when there are none.
	keys  *keyset.Set
	known *verifier.Issuer
	// problem says why there are no keys.
	problem string
}

func newVerify(c *cli) *cobra.Command {
	o := &verifyOptions{c: c}
	cmd := &cobra.Command{
		Use:   "verify TOKEN|-",
		Short: "Say why a token is accepted or refused, check by check",
		Long: `Make the verifier's checks, in its order and with its code, and show how each ends.
The token is judged now, with the keys that the cluster trusts, or with those of a file.

"-" reads the token from standard input, and keeps it out of the shell's history and
the list of processes. Token and signature are never shown, claims only with
--show-claims.

The issuer object is the one for the token's issuer in the namespace or the cluster;
--by names it where there are several. What only one protocol demands (the user name
of a TokenReview, say) is not checked. An unknown key is not looked up: ` + "`kubectl jwks\nrefresh`" + ` does that.

Exit codes: 0 accepted, 2 refused, 3 cannot decide, 1 the command failed.`,
		Example: `  kubectl jwks verify - -n orders < token.txt
  kubectl jwks verify - --by cti/login --show-claims < token.txt
  kubectl jwks verify - --jwks keys.json --issuer https://login.example.com/ --audience orders < token.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return advise("Give - and the token on standard input: kubectl jwks verify - < token.txt", "verify needs one token")
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.by, "by", "", "The issuer object that judges: NAME, ti/NAME or cti/NAME")
	f.StringVar(&o.jwks, "jwks", "", "Judge with the key set in this file, without a cluster; needs --issuer and --audience")
	f.StringVar(&o.issuer, "issuer", "", "With --jwks: the exact iss that is trusted")
	f.StringArrayVar(&o.audiences, "audience", nil, "With --jwks: an audience of which the token must name one; repeatable")
	f.BoolVar(&o.showClaims, "show-claims", false, "Show the token's claims, which may be personal data")
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "Look for the issuer object in all namespaces")
	_ = cmd.RegisterFlagCompletionFunc("by", c.completeIssuer) // the flag exists
	outputFlag(cmd, &o.output)
	return cmd
}

func (o *verifyOptions) run(ctx context.Context, arg string) error {
	token, err := o.token(arg)
	if err != nil {
		return err
	}
	j, err := o.judge(ctx, token)
	if err != nil {
		return err
	}
	e := verifier.Explain(token, j.known, o.c.now())
	if err := o.print(j, e); err != nil {
		return err
	}
	switch e.Verdict.Outcome {
	case verifier.Accept:
		return nil
	case verifier.Refuse:
		return exitCode(exitNo)
	case verifier.CannotDecide:
	}
	return exitCode(exitUndecided)
}

// token is the argument, or what stands on standard input. The word Bearer before it
// and white space around it are nobody's concern here.
func (o *verifyOptions) token(arg string) (string, error) {
	text := arg
	if arg == "-" {
		raw, err := io.ReadAll(io.LimitReader(o.c.In, maxToken+1))
		if err != nil {
			return "", fmt.Errorf("reading the token from standard input: %w", err)
		}
		if len(raw) > maxToken {
			return "", advise("Is it a token at all? The verifier takes 16 KiB.", "what stands on standard input is over 64 KiB")
		}
		text = string(raw)
	}
	text = strings.TrimSpace(text)
	if word, rest, found := strings.Cut(text, " "); found && strings.EqualFold(word, "Bearer") {
		text = strings.TrimSpace(rest)
	}
	if text == "" {
		return "", advise("kubectl jwks verify - < token.txt", "there is no token")
	}
	return text, nil
}

// judge finds out who judges.
func (o *verifyOptions) judge(ctx context.Context, token string) (judge, error) {
	switch {
	case o.jwks != "":
		return o.fileJudge()
	case o.issuer != "" || len(o.audiences) > 0:
		return judge{}, advise("Add --jwks FILE, or leave these flags out to judge by the cluster's issuer objects.", "--issuer and --audience go with --jwks")
	case o.by != "":
		issuer, err := o.c.find(ctx, o.by)
		if err != nil {
			return judge{}, err
		}
		return o.objectJudge(ctx, issuer)
	}
	iss := verifier.UntrustedIssuer(token)
	if iss == "" { // it ends before anybody asks whose it is, or has no issuer
		return judge{name: "nobody yet: it names no issuer"}, nil
	}
	issuers, err := o.c.list(ctx, o.allNamespaces)
	if err != nil {
		return judge{}, err
	}
	var found []api.Issuer
	var gone error
	for _, issuer := range issuers {
		if issuer.IssuerSpec().Issuer != iss {
			continue
		}
		if err := notTrusted(issuer); err != nil {
			gone = err
			continue
		}
		found = append(found, issuer)
	}
	switch len(found) {
	case 0:
		return judge{}, cmp.Or(gone, o.nobody(iss))
	case 1:
		return o.objectJudge(ctx, found[0])
	}
	names := make([]string, 0, len(found))
	for _, issuer := range found {
		names = append(names, "--by "+argumentsFor(issuer))
	}
	return judge{}, advise("Say which one judges: "+strings.Join(names, ", or ")+".", "%d issuer objects are for the token's issuer", len(found))
}

// nobody says that no issuer object is for the token's issuer.
func (o *verifyOptions) nobody(iss string) error {
	what := "the token's issuer (--show-claims shows it)"
	if o.showClaims {
		what = fmt.Sprintf("the token's issuer, %q", iss)
	}
	where := "in this namespace or the cluster"
	if o.allNamespaces {
		where = "anywhere"
	}
	return advise("It is compared to the byte: a trailing slash matters. -A looks in all namespaces; --by NAME judges by another object and shows where the two differ.",
		"no issuer object %s is for %s", where, what)
}

// objectJudge judges with what the cluster trusts.
func (o *verifyOptions) objectJudge(ctx context.Context, issuer api.Issuer) (judge, error) {
	if err := notTrusted(issuer); err != nil {
		return judge{}, err
	}
	j := judge{name: describedAs(issuer), issuer: issuer}
	keys, err := o.c.trustedKeys(ctx, issuer)
	recorded := issuer.IssuerStatus().Snapshot
	switch {
	case err == nil:
	case recorded != nil && recorded.Digest+recorded.PendingDigest != "":
		return judge{}, err // there are keys, and they cannot be read: the verifier may know better
	default:
		j.problem = err.Error()
	}
	j.known = verifier.NewIssuer(issuer, keys.data, o.c.now())
	j.keys = j.known.Usable()
	return j, nil
}

// fileJudge judges with the keys of a file, admitted as the controller admits them.
func (o *verifyOptions) fileJudge() (judge, error) {
	if o.issuer == "" || len(o.audiences) == 0 || o.by != "" {
		return judge{}, advise("--issuer is the exact iss that is trusted, --audience what the token must be meant for; --by is for issuer objects.", "--jwks needs --issuer and --audience, and excludes --by")
	}
	document, err := os.ReadFile(o.jwks)
	if err != nil {
		return judge{}, err
	}
	parsed, err := keyset.Parse(document, keyset.Policy{})
	if err != nil {
		var problem *keyset.Error
		if errors.As(err, &problem) {
			return judge{}, fmt.Errorf("%s: %s", o.jwks, problem.Message)
		}
		return judge{}, fmt.Errorf("%s: %w", o.jwks, err)
	}
	for _, s := range parsed.Skipped {
		fmt.Fprintf(o.c.ErrOut, "%s: key %s is left out: %s\n", o.jwks, keyName(s.KeyID), s.Reason)
	}
	issuer := &api.TrustedIssuer{ObjectMeta: metav1.ObjectMeta{Name: "file"}}
	issuer.Spec.IssuerSpec = api.IssuerSpec{Issuer: o.issuer, Audiences: o.audiences, JWKS: string(document)}
	issuer.Status.Snapshot = &api.SnapshotStatus{Digest: parsed.Set.Digest(), LastSuccessTime: &metav1.Time{Time: o.c.now()}}
	for _, k := range parsed.Compromised {
		issuer.Status.CompromisedKeys = append(issuer.Status.CompromisedKeys, api.CompromisedKey{KeyID: k.KeyID, Thumbprint: k.Thumbprint})
	}
	data, err := snapshot.Encode(parsed.Set, snapshot.Descriptor{Issuer: o.issuer})
	if err != nil {
		return judge{}, err
	}
	known := verifier.NewIssuer(issuer, data, o.c.now())
	return judge{name: "the keys in " + o.jwks, issuer: issuer, keys: known.Usable(), known: known}, nil
}

// print shows the answer.
func (o *verifyOptions) print(j judge, e verifier.Explanation) error {
	answer := o.answer(j, e)
	if structured(o.output) {
		return encode(o.c.Out, o.output, answer)
	}
	w := o.c.Out
	fmt.Fprintf(w, "Judged by %s", j.name)
	if j.keys != nil {
		fmt.Fprintf(w, ", with %s (%s)", count(j.keys.Len(), "trusted key"), windowOf(j.issuer, o.c.now()).State(o.c.now()))
	}
	fmt.Fprint(w, "\n\n")
	signs := map[string]string{string(verifier.Passed): "ok", string(verifier.Failed): "FAILED", string(verifier.Undecided): "UNDECIDED", string(verifier.NotReached): "-"}
	rows := make([][]string, 0, len(answer.Checks))
	for _, c := range answer.Checks {
		rows = append(rows, []string{signs[c.Result], c.Check, c.Demand})
	}
	if err := table(w, "  ", rows); err != nil {
		return err
	}
	verdict := map[verifier.Outcome]string{verifier.Accept: "Accepted", verifier.Refuse: "Refused", verifier.CannotDecide: "Cannot decide"}[e.Verdict.Outcome]
	fmt.Fprintf(w, "\n%s: %s", verdict, answer.Text)
	if e.Verdict.Outcome != verifier.Accept {
		fmt.Fprintf(w, " (%s)", answer.Reason)
	}
	fmt.Fprintln(w, ".")
	for _, line := range []string{answer.Detail, j.problem, answer.Do} {
		if line != "" {
			fmt.Fprintln(w, plainLines(line))
		}
	}
	if answer.Claims != nil {
		o.printClaims(answer, e.Verdict.Outcome == verifier.Accept)
	}
	return nil
}

// plainLines is text of several lines, each safe for a terminal.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = plain(lines[i])
	}
	return strings.Join(lines, "\n")
}

func (o *verifyOptions) printClaims(answer judged, vouched bool) {
	note := "which nobody vouches for"
	if vouched {
		note = "which the issuer vouches for"
	}
	// JSON text holds no control characters, but some that turn a line around.
	fmt.Fprintf(o.c.Out, "\nClaims, %s:\n%s\n", note, plainLines(string(answer.Claims)))
}

// answer is the explanation, with what is demanded and what to do.
func (o *verifyOptions) answer(j judge, e verifier.Explanation) judged {
	v := e.Verdict
	answer := judged{
		Outcome: v.Outcome.String(), Reason: string(v.Reason), Detail: v.Detail, Text: v.Reason.Text(),
		Do: o.advice(j, e), By: j.name,
	}
	for _, c := range e.Checks {
		answer.Checks = append(answer.Checks, judgedCheck{string(c.Step), string(c.Result), string(c.Reason), demand(c.Step, j)})
	}
	if e.UntrustedAlgorithm != "" {
		answer.Header = &judgedHeader{e.UntrustedAlgorithm, e.UntrustedKeyID}
	}
	if o.showClaims && e.UntrustedPayload != nil {
		var pretty bytes.Buffer
		if json.Indent(&pretty, e.UntrustedPayload, "", "  ") == nil { // the token was decoded: it is JSON
			answer.Claims = pretty.Bytes()
		}
	}
	return answer
}

// demand is what a step checks, with the values that the issuer object demands.
func demand(step verifier.Step, j judge) string {
	spec, verification := &api.IssuerSpec{}, &api.VerificationSpec{}
	if j.issuer != nil {
		spec = j.issuer.IssuerSpec()
		if spec.Verification != nil {
			verification = spec.Verification
		}
	}
	anyOf := func(values []string, none string) string {
		if len(values) == 0 {
			return none
		}
		return strings.Join(values, ", ")
	}
	switch step {
	case verifier.StepSize:
		return "there is a token, of at most 16 KiB"
	case verifier.StepForm:
		return "it is a JWT, written strictly, with a supported algorithm"
	case verifier.StepClaimTypes:
		return "the registered claims have their types"
	case verifier.StepAlgorithm:
		names := make([]string, 0, len(spec.AllowedAlgorithms))
		for _, a := range spec.AllowedAlgorithms {
			names = append(names, string(a))
		}
		return "alg is allowed: " + anyOf(names, "any supported one")
	case verifier.StepIssuer:
		return "iss is " + anyOf(nonEmpty(spec.Issuer), "that of an issuer object")
	case verifier.StepAudience:
		return "aud names one of: " + anyOf(spec.Audiences, "the issuer object's")
	case verifier.StepPolicy:
		return "the rules in spec can be compiled"
	case verifier.StepExpiry:
		return "exp is there, and has not passed"
	case verifier.StepNotBefore:
		return "nbf has come"
	case verifier.StepIssuedAt:
		return "iat has come"
	case verifier.StepLifetime:
		if d := verification.MaxTokenLifetime; d != nil {
			return "exp is at most " + d.Duration.String() + " after iat"
		}
		return "any lifetime will do"
	case verifier.StepType:
		return "typ is allowed: " + anyOf(verification.TokenTypes, "any")
	case verifier.StepRequired:
		return "claims that are required: " + anyOf(requiredOf(verification), "none")
	case verifier.StepRevocation:
		return "it names no revoked key"
	case verifier.StepKeys:
		return "there are trusted keys, which have not expired"
	case verifier.StepKey:
		return "one of them fits kid and alg"
	case verifier.StepSignature:
		return "that key made the signature"
	case verifier.StepRules:
		return "rules that hold: " + anyOf(expressionsOf(verification), "none")
	}
	return ""
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// requiredOf are the required claims, with the value where one is required.
func requiredOf(v *api.VerificationSpec) []string {
	all := append([]string(nil), v.RequiredClaims...)
	for _, rule := range v.ClaimValidationRules {
		if rule.Claim != "" {
			all = append(all, rule.Claim+"="+rule.RequiredValue)
		}
	}
	return all
}

func expressionsOf(v *api.VerificationSpec) []string {
	var all []string
	for _, rule := range v.ClaimValidationRules {
		if rule.Expression != "" {
			all = append(all, rule.Expression)
		}
	}
	return all
}

// advice is what to do about the verdict.
func (o *verifyOptions) advice(j judge, e verifier.Explanation) string {
	name := "NAME"
	if j.issuer != nil {
		name = argumentsFor(j.issuer)
	}
	switch e.Verdict.Reason {
	case verifier.UnknownKey:
		known := make([]string, 0, 8)
		if j.keys != nil {
			for _, k := range j.keys.Keys() {
				known = append(known, keyName(k.KeyID()))
			}
		}
		text := fmt.Sprintf("The token's kid is %q, its alg %s; the trusted kids are: %s.", e.UntrustedKeyID, e.UntrustedAlgorithm, strings.Join(known, ", "))
		if o.jwks != "" {
			return text
		}
		return text + "\nIf the issuer has a new key: kubectl jwks refresh " + name + ", and ask again. kubectl jwks diff " + name + " shows what it publishes."
	case verifier.IssuerMismatch:
		if j.issuer == nil {
			return "It has no issuer claim, and no issuer object is for such tokens: have the issuer put iss into them."
		}
	case verifier.KeyRevoked:
		return "kubectl jwks describe " + name + " shows which keys are refused. The issuer has to sign with another one."
	case verifier.KeyAlgorithmMismatch:
		return fmt.Sprintf("The token's kid is %q, its alg %s: have the issuer sign with the algorithm that it publishes the key for.", e.UntrustedKeyID, e.UntrustedAlgorithm)
	case verifier.SnapshotExpired, verifier.NoSnapshot:
		says := "kubectl jwks describe " + name + " says why"
		if j.issuer != nil && j.issuer.IssuerSpec().Static() {
			return says + ". " + tryAgain(j.issuer)
		}
		return says + "; kubectl jwks refresh " + name + " tries again now."
	}
	return adviceOf[e.Verdict.Reason]
}

// adviceOf is what to do about the other reasons.
var adviceOf = map[verifier.Reason]string{
	verifier.Accepted:             "",
	verifier.TokenMissing:         "Give the token, alone.",
	verifier.TokenTooLarge:        "Have the issuer put less into the token.",
	verifier.MalformedToken:       "Is it whole, and an access or id token in JWT form? Opaque tokens and encrypted ones (five parts) cannot be verified with keys.",
	verifier.HeaderNotAllowed:     "Have the issuer make plain JWTs, without crit, b64, zip or nesting.",
	verifier.AlgorithmNotAllowed:  "Have the issuer sign with an algorithm of spec.allowedAlgorithms (RS, PS, ES or EdDSA), or allow this one there. HS256 and none never are.",
	verifier.MalformedClaims:      "Have the issuer follow RFC 7519: iss and sub are strings, times are numbers of seconds.",
	verifier.IssuerMismatch:       "It is compared to the byte: a trailing slash matters. --show-claims shows what the token says.",
	verifier.UnknownIssuer:        "--show-claims shows what the token says; --by NAME judges by an object all the same.",
	verifier.AudienceMismatch:     "Ask the issuer for a token for one of these audiences, or add the token's to spec.audiences if it is really meant for you. --show-claims shows it.",
	verifier.PolicyInvalid:        "Correct the expression that the condition Stalled names.",
	verifier.ExpiryMissing:        "Have the issuer give tokens an expiry: those without are never accepted.",
	verifier.TokenExpired:         "Get a new token. If it is new, compare the clocks of the issuer and of this machine. --show-claims shows its times.",
	verifier.TokenNotYetValid:     "Compare the clocks of the issuer and of this machine; spec.verification.leeway is the tolerance.",
	verifier.IssuedInFuture:       "Compare the clocks of the issuer and of this machine; spec.verification.leeway is the tolerance.",
	verifier.LifetimeTooLong:      "Have the issuer make shorter tokens with an iat, or raise spec.verification.maxTokenLifetime.",
	verifier.TokenTypeNotAllowed:  "Is it an id token where an access token is wanted, or the other way round?",
	verifier.RequiredClaimMissing: "Have the issuer add the claim. --show-claims shows what there is.",
	verifier.ClaimRuleFailed:      "--show-claims shows what the rule is applied to.",
	verifier.AmbiguousKey:         "Have the issuer put a kid into the header.",
	verifier.SignatureInvalid:     "The token was changed on the way, or was signed by somebody else: another environment of the issuer, or a forger.",
}
