// Says who sent a token, or null. A JDK of version 17 or later, with Gson for JSON.
//
//   javac -cp gson.jar -d out Verify.java
//   java -cp gson.jar:out Verify SOURCE ISSUER AUDIENCE      tokens on standard input, one a line

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.math.BigInteger;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECParameterSpec;
import java.security.spec.ECPoint;
import java.security.spec.ECPublicKeySpec;
import java.security.spec.EdECPoint;
import java.security.spec.EdECPublicKeySpec;
import java.security.spec.NamedParameterSpec;
import java.security.spec.RSAPublicKeySpec;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

public final class Verify {
    static final Duration LEEWAY = Duration.ofSeconds(60);

    /** There are no keys to judge by: no verdict about a token. Answer 503, not 401. */
    static final class KeysUnavailable extends Exception {
        KeysUnavailable(String message, Throwable cause) {
            super(message, cause);
        }
    }

    /** A trusted key, and the one algorithm that it is for. */
    record Key(PublicKey key, String algorithm) {}

    /** Where trusted keys are read; it may look again for a name that it does not know. */
    interface Keys {
        Key get(String kid) throws KeysUnavailable;
    }

    /** The file of a mounted ConfigMap, read again when it is another one. */
    static final class MountedKeys implements Keys {
        private final Path path;
        private List<Object> seen;
        private Map<String, Key> keys;

        MountedKeys(String path) {
            this.path = Path.of(path);
        }

        @Override
        public synchronized Key get(String kid) throws KeysUnavailable {
            try {
                BasicFileAttributes a = Files.readAttributes(path, BasicFileAttributes.class);
                List<Object> found = List.of(a.fileKey(), a.lastModifiedTime(), a.size());
                if (!found.equals(seen)) {
                    keys = parse(Files.readString(path));
                    seen = found;
                }
            } catch (NoSuchFileException e) { // no key is trusted any more
                seen = null;
                keys = null;
                throw new KeysUnavailable("no trusted keys", e);
            } catch (IOException | GeneralSecurityException | RuntimeException e) {
                if (keys == null) { // otherwise the last good ones do
                    throw new KeysUnavailable("the trusted keys cannot be read", e);
                }
            }
            return keys.get(kid);
        }
    }

    /**
     * The mirror's URL, asked once a minute, and about an unknown key once a second. The system
     * property javax.net.ssl.trustStore names the authority that its certificate is of.
     */
    static final class MirroredKeys implements Keys {
        private static final long SECOND = 1_000_000_000L;
        private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
        private final HttpRequest request;
        private Map<String, Key> keys;
        private Long asked;
        private long answered;

        MirroredKeys(String url) {
            request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(5)).build();
        }

        @Override
        public synchronized Key get(String kid) throws KeysUnavailable {
            long age = asked == null ? Long.MAX_VALUE : System.nanoTime() - asked;
            boolean known = keys != null && keys.containsKey(kid);
            Exception failure = null;
            if (age >= 60 * SECOND || (!known && age >= SECOND)) {
                asked = System.nanoTime();
                try {
                    keys = fetch();
                    answered = System.nanoTime();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                } catch (IOException | GeneralSecurityException | RuntimeException e) {
                    failure = e; // for ten minutes the last good ones do
                }
            }
            if (keys == null || System.nanoTime() - answered > 600 * SECOND) {
                throw new KeysUnavailable("the mirror gives no keys", failure);
            }
            return keys.get(kid);
        }

        private Map<String, Key> fetch() throws IOException, InterruptedException, GeneralSecurityException {
            var response = client.send(request, BodyHandlers.ofString());
            if (response.statusCode() != 200) {
                throw new IOException("the mirror answered " + response.statusCode());
            }
            return parse(response.body());
        }
    }

    /** The keys of a set, by their names. What is for other algorithms is left out. */
    static Map<String, Key> parse(String text) throws IOException, GeneralSecurityException {
        Map<String, Key> keys = new HashMap<>();
        for (JsonElement e : json(text).getAsJsonArray("keys")) {
            JsonObject jwk = e.getAsJsonObject();
            String kid = string(jwk, "kid");
            String type = string(jwk, "kty") + (jwk.has("crv") ? " " + string(jwk, "crv") : "");
            String algorithm = jwk.has("alg") ? string(jwk, "alg") : "";
            switch (type) {
                case "RSA" -> add(keys, kid, "RS256", algorithm, rsa(jwk));
                case "EC P-256" -> add(keys, kid, "ES256", algorithm, p256(jwk));
                case "OKP Ed25519" -> add(keys, kid, "EdDSA", algorithm.equals("Ed25519") ? "EdDSA" : algorithm, ed25519(jwk));
                default -> { }
            }
        }
        return keys;
    }

    private static void add(Map<String, Key> keys, String kid, String ours, String theirs, PublicKey key) {
        if (theirs.isEmpty() || theirs.equals(ours)) {
            keys.put(kid, new Key(key, ours));
        }
    }

    private static PublicKey rsa(JsonObject jwk) throws GeneralSecurityException {
        var spec = new RSAPublicKeySpec(number(jwk, "n"), number(jwk, "e"));
        return KeyFactory.getInstance("RSA").generatePublic(spec);
    }

    private static PublicKey p256(JsonObject jwk) throws GeneralSecurityException {
        AlgorithmParameters curve = AlgorithmParameters.getInstance("EC");
        curve.init(new ECGenParameterSpec("secp256r1"));
        var point = new ECPoint(number(jwk, "x"), number(jwk, "y"));
        var spec = new ECPublicKeySpec(point, curve.getParameterSpec(ECParameterSpec.class));
        return KeyFactory.getInstance("EC").generatePublic(spec);
    }

    private static PublicKey ed25519(JsonObject jwk) throws GeneralSecurityException {
        byte[] littleEndian = decode(string(jwk, "x"));
        if (littleEndian.length != 32) {
            throw new GeneralSecurityException("an Ed25519 key has 32 bytes");
        }
        byte[] y = new byte[32];
        for (int i = 0; i < 32; i++) {
            y[i] = littleEndian[31 - i];
        }
        boolean odd = (y[0] & 0x80) != 0;
        y[0] &= 0x7f;
        var point = new EdECPoint(odd, new BigInteger(1, y));
        return KeyFactory.getInstance("Ed25519").generatePublic(new EdECPublicKeySpec(NamedParameterSpec.ED25519, point));
    }

    /** The token's claims, or null where it is not to be trusted. */
    static JsonObject verify(String token, Keys keys, String issuer, String audience) throws KeysUnavailable {
        try {
            String[] parts = token.split("\\.", -1);
            if (parts.length != 3 || token.length() > 16384) {
                return null;
            }
            JsonObject header = json(utf8(decode(parts[0])));
            if (header.has("crit") || header.has("b64")) {
                return null;
            }
            Key key = keys.get(string(header, "kid"));
            if (key == null || !key.algorithm().equals(string(header, "alg"))) {
                return null;
            }
            byte[] signed = (parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII);
            if (!signatureIsGood(key, signed, decode(parts[2]))) {
                return null;
            }
            JsonObject claims = json(utf8(decode(parts[1])));
            return claimsAreGood(claims, issuer, audience) ? claims : null;
        } catch (IOException | GeneralSecurityException | RuntimeException e) {
            return null; // whatever a token does to a parser, it is a no
        }
    }

    private static boolean signatureIsGood(Key key, byte[] signed, byte[] signature) throws GeneralSecurityException {
        Signature s = Signature.getInstance(switch (key.algorithm()) {
            case "RS256" -> "SHA256withRSA";
            case "ES256" -> "SHA256withECDSAinP1363Format";
            default -> "Ed25519";
        });
        s.initVerify(key.key());
        s.update(signed);
        return s.verify(signature);
    }

    private static boolean claimsAreGood(JsonObject claims, String issuer, String audience) {
        double now = System.currentTimeMillis() / 1000.0;
        double leeway = LEEWAY.toSeconds();
        return string(claims, "iss").equals(issuer)
            && audiences(claims.get("aud")).contains(audience)
            && !string(claims, "sub").isEmpty()
            && time(claims, "exp") > now - leeway
            && (!claims.has("nbf") || time(claims, "nbf") <= now + leeway)
            && (!claims.has("iat") || time(claims, "iat") <= now + leeway);
    }

    private static List<String> audiences(JsonElement aud) {
        if (aud instanceof JsonArray several) {
            return several.asList().stream().map(Verify::string).toList();
        }
        return List.of(string(aud));
    }

    private static double time(JsonObject claims, String name) {
        var value = claims.getAsJsonPrimitive(name);
        if (!value.isNumber() || !Double.isFinite(value.getAsDouble())) {
            throw new IllegalArgumentException(name + " is not a time");
        }
        return value.getAsDouble();
    }

    private static String string(JsonObject object, String name) {
        return string(object.get(name));
    }

    private static String string(JsonElement element) {
        if (element == null || !element.isJsonPrimitive() || !element.getAsJsonPrimitive().isString()) {
            throw new IllegalArgumentException("not a string");
        }
        return element.getAsString();
    }

    private static BigInteger number(JsonObject jwk, String name) {
        return new BigInteger(1, decode(string(jwk, name)));
    }

    /** Base64url without padding, in its one spelling. */
    private static byte[] decode(String text) {
        byte[] bytes = Base64.getUrlDecoder().decode(text);
        if (!Base64.getUrlEncoder().withoutPadding().encodeToString(bytes).equals(text)) {
            throw new IllegalArgumentException("not base64url");
        }
        return bytes;
    }

    private static String utf8(byte[] bytes) throws IOException {
        return StandardCharsets.UTF_8.newDecoder().decode(java.nio.ByteBuffer.wrap(bytes)).toString();
    }

    private static JsonObject json(String text) throws IOException {
        return new Gson().getAdapter(JsonObject.class).fromJson(text);
    }

    public static void main(String[] args) throws IOException {
        Keys keys = args[0].startsWith("https://") ? new MirroredKeys(args[0]) : new MountedKeys(args[0]);
        var tokens = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String token; (token = tokens.readLine()) != null; ) {
            try {
                JsonObject claims = verify(token, keys, args[1], args[2]);
                JsonObject user = new JsonObject();
                if (claims != null) {
                    user.add("sub", claims.get("sub"));
                }
                System.out.println(claims == null ? "null" : user);
            } catch (KeysUnavailable e) {
                System.out.println("unavailable: " + e.getMessage() + " (" + e.getCause() + ")");
            }
        }
    }
}
