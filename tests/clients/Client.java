// Java's java.net.http. See python_sdks.py for what it reads and prints.
import java.io.FileInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.stream.IntStream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    interface Attempt {
        void run() throws Exception;
    }

    static HttpClient client;
    static String base;
    static String way;

    // Trusts the authority of `gateway dev --tls`.
    static SSLContext trusting(String file) throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var input = new FileInputStream(file)) {
            var factory = CertificateFactory.getInstance("X.509");
            store.setCertificateEntry("gateway", factory.generateCertificate(input));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        var context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    static HttpRequest post(String path, String body) {
        return HttpRequest.newBuilder(URI.create(base + path))
                .header("Authorization", "Bearer " + System.getenv("API_KEY"))
                .header("Content-Type", "application/json")
                .timeout(Duration.ofSeconds(60))
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
    }

    static String chat(String model, String more) {
        return "{\"model\":\"" + model + "\",\"messages\":[{\"role\":\"user\",\"content\":"
                + "\"one two three\"}]" + more + "}";
    }

    static HttpResponse<String> send(HttpRequest request) throws Exception {
        return client.send(request, HttpResponse.BodyHandlers.ofString());
    }

    static void expect(boolean condition, Object why) {
        if (!condition) {
            throw new IllegalStateException(String.valueOf(why));
        }
    }

    static void attempt(String name, Attempt attempt) {
        try {
            attempt.run();
            System.out.println("PASS Java java.net.http, " + way + ": " + name);
        } catch (Exception error) {
            System.out.println("FAIL Java java.net.http, " + way + ": " + name + ": " + error);
        }
    }

    public static void main(String[] args) throws Exception {
        // Without TLS this client asks for an upgrade, which is not taken.
        client = HttpClient.newHttpClient();
        base = System.getenv("BASE_URL");
        way = "HTTP/1.1";
        attemptAll(HttpClient.Version.HTTP_1_1);
        client = HttpClient.newBuilder().sslContext(trusting(System.getenv("TLS_AUTHORITY"))).build();
        base = System.getenv("TLS_URL");
        way = "HTTP/2, TLS";
        attemptAll(HttpClient.Version.HTTP_2);
    }

    static void attemptAll(HttpClient.Version version) {
        attempt("a model name, from URL and key alone", () -> {
            var whole = send(post("/v1/chat/completions", chat("demo", "")));
            expect(whole.statusCode() == 200, whole.body());
            expect(whole.body().contains("\"one two three\""), whole.body());
            expect(whole.version() == version, whole.version());
        });
        attempt("calls side by side", () -> {
            var request = post("/v1/chat/completions", chat("demo", ""));
            var handler = HttpResponse.BodyHandlers.ofString();
            var calls = IntStream.range(0, 40).mapToObj(n -> client.sendAsync(request, handler)).toList();
            for (var call : calls) {
                expect(call.get().statusCode() == 200, call.get().body());
            }
        });
        attempt("streaming", () -> {
            var request = post("/v1/chat/completions", chat("demo", ",\"stream\":true"));
            var lines = client.send(request, HttpResponse.BodyHandlers.ofLines()).body();
            var events = lines.filter(line -> line.startsWith("data: ")).count();
            expect(events == 6, events + " events");
        });
        attempt("a cut stream is an error", () -> {
            var body = chat("demo", ",\"stream\":true,\"break_after\":2");
            try {
                var whole = send(post("/v1/chat/completions", body));
                throw new IllegalStateException("the cut was not seen: " + whole.body());
            } catch (IOException expected) {
                // The connection ended before the response did.
            }
        });
        attempt("the reason is there", () -> {
            var told = send(post("/v1/chat/completions", chat("nothing", "")));
            expect(told.statusCode() == 404, told.statusCode());
            expect(told.body().contains("\"code\":\"model_not_found\""), told.body());
        });
    }
}
